"""Stochastic binarization with other random numbers than torch's default: fewer bits, other makers.

A uniform number of b bits resolves the probability of +1 to 2^-b: drawn as a signed integer n from
[-2^(b-1), 2^(b-1)), +1 where n + 1/2 < 2^(b-1) x. So 1 and above always give +1, -1 and below never
do, and 0 is fair. A float32 of [0, 1) has 24 bits. On a CPU only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from bnnlib.binarize import hard_sigmoid, sample_sign, sign
from study.bench.timing import Implementation, compare

NUMPY = {"PCG64": np.random.PCG64, "SFC64": np.random.SFC64, "Philox": np.random.Philox}
TORCH = "torch (MT19937)"
INTEGERS = {8: torch.int8, 16: torch.int16}
FLOAT_BITS = 24  # of a float32 in [0, 1)
# +1 where a number < factor x + shift
LIMITS = {torch.int8: (128, -0.5), torch.int16: (32768, -0.5), torch.float32: (0.5, 0.5)}


@dataclass(frozen=True)
class Source:
    """A generator, and how many bits of it a number takes. `numbers`: a count -> (count,) int8 or
    int16, uniform over all values, or float32 in [0, 1)."""

    generator: str
    bits: int
    numbers: Callable[[int], Tensor]


def sources(seed: int) -> list[Source]:
    """torch's generator and NumPy's, each with 24, 16 and 8 bits a number."""
    noise = Generator().manual_seed(seed)
    found = _three(TORCH, lambda count: torch.rand(count, generator=noise), _torch_words(noise))
    for name, kind in NUMPY.items():
        made = np.random.Generator(kind(seed))
        found += _three(name, _numpy_floats(made), _numpy_words(made))
    return found


def _three(name: str, floats: Callable, words: Callable) -> list[Source]:
    """A word has 64 bits: it is cut into as many numbers as it holds."""
    cut = [Source(name, bits, _cut(words, bits, dtype)) for bits, dtype in INTEGERS.items()]
    return [Source(name, FLOAT_BITS, floats), *reversed(cut)]


def _cut(words: Callable[[int], Tensor], bits: int, dtype: torch.dtype) -> Callable[[int], Tensor]:
    return lambda count: words(-(-count * bits // 64)).view(dtype)[:count]


def _torch_words(noise: Generator) -> Callable[[int], Tensor]:
    return lambda count: torch.empty(count, dtype=torch.int64).random_(
        -(2**63), None, generator=noise
    )


def _numpy_words(made: np.random.Generator) -> Callable[[int], Tensor]:
    return lambda count: torch.from_numpy(made.integers(-(2**63), 2**63, count, dtype=np.int64))


def _numpy_floats(made: np.random.Generator) -> Callable[[int], Tensor]:
    return lambda count: torch.from_numpy(made.random(count, dtype=np.float32))


def drawn_sign(x: Tensor, numbers: Tensor) -> Tensor:
    """x float32, any shape, and as many of a source's numbers -> signs float32 in {-1, +1}."""
    factor, shift = LIMITS[numbers.dtype]
    limit = (factor * x).add_(shift)
    return torch.lt(numbers.view(x.shape), limit, out=limit).mul_(2).sub_(1)


def costs(x: Tensor, seed: int, seconds: float) -> list[dict]:
    """Times of binarizing x (float32, on a CPU), rows as `timing.compare` makes them.

    First without chance and with torch's two ready ways; then each source twice: its numbers alone,
    and all. `off`: mean of the result less mean of hard tanh(x), the expectation. The seed must be
    another than that of x.
    """
    noise, threads = Generator().manual_seed(seed), torch.get_num_threads()
    ready = {
        "sign": lambda: sign(x),
        "sample_sign": lambda: sample_sign(x, noise),
        "torch.bernoulli": lambda: torch.bernoulli(hard_sigmoid(x), generator=noise) * 2 - 1,
    }
    ways = [Implementation(name, "signs", call, threads) for name, call in ready.items()]
    for source in sources(seed):
        ways += [
            Implementation(_name(source), "numbers", _numbers(source, x), threads),
            Implementation(_name(source), "signs", _signs(source, x), threads),
        ]
    return compare(ways, lambda timed, result: _off(timed, result, x), seconds, "cpu")


def _name(source: Source) -> str:
    return f"{source.generator}, {source.bits} bits"


def _numbers(source: Source, x: Tensor) -> Callable[[], Tensor]:
    return lambda: source.numbers(x.numel())


def _signs(source: Source, x: Tensor) -> Callable[[], Tensor]:
    return lambda: drawn_sign(x, source.numbers(x.numel()))


def _off(timed: Implementation, result: Tensor, x: Tensor) -> dict:
    if timed.output == "numbers":
        return {}
    return {"off": (result.mean() - x.clamp(-1, 1).mean()).item()}


def sum_errors(low: float, counts: Tensor) -> tuple[Tensor, Tensor]:
    """RMS errors of a sum of K binarized terms / K, by the sign and by a toss; by formula.

    Terms lie evenly from `low` to 1; counts (N,): the Ks. Returns two tensors (N,). The sign's bias
    stays whatever K is; all else falls with K.
    """
    v = low + (1 - low) * torch.linspace(0, 1, 100_001)
    off = sign(v) - v
    by_sign = off.mean() ** 2 + off.var() / counts
    by_toss = (1 - v**2).mean() / counts
    return by_sign.sqrt(), by_toss.sqrt()

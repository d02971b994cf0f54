"""Random numbers on a CPU that are compared as they are made: those that torch would draw.

torch fills memory with them on one thread, and compares them in later passes. Here a generator's
state is taken, its next words are made from it, and all threads compare them; the generator then
stands where torch's own drawing would have left it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from bnnlib import parallel
from bnnlib.kernels import dispatch
from bnnlib.traced import PLAIN

WORDS_PER_PIECE = 1 << 18  # they stay in a core's cache
STATE_BYTES = 5056  # of torch's generator (CPUGeneratorImpl.cpp): the engine's words begin at 24


def fits(x: Tensor, noise: Generator | None) -> bool:
    """Whether draws for x are made here: it is float32 on the CPU, contiguous or channels-last.

    Several processes draw for the whole batch, and each takes its rows: `parallel.uniform`. A
    tracer's tensors have no numbers to compare. Raises as `parallel.require_first_pass`.
    """
    parallel.require_first_pass(noise)
    return (
        noise is not None
        and dispatch.fits(x)
        and type(x) in PLAIN
        and not torch.compiler.is_compiling()
        and parallel.size() == 1
        and noise.device.type == "cpu"
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
    )


def words(noise: Generator, count: int, most: int) -> Iterator[np.ndarray]:
    """Yield the generator's next `count` words before tempering, uint32, up to `most` at a time.

    Each array is valid until the next. The generator is moved on when all were taken.
    """
    from bnnlib.kernels.cpu import mersenne

    size = mersenne.STATE_WORDS
    state = noise.get_state()
    blob = state.numpy()
    left = blob[8:12].view(np.int32)
    following = blob[16:24].view(np.int64)
    kept = blob[24 : 24 + 8 * size].view(np.int64)
    room = np.empty((2 + min(most, count) // size) * size + size, np.uint32)
    room[:size] = kept
    place = size + 1 - left[0]
    for start in range(0, count, most):
        end = place + min(most, count - start)
        made = -(-end // size) * size
        mersenne.extend(room, made)
        yield room[place:end]
        room[:size] = room[made - size : made]
        place = end - (made - size)
    kept[:] = room[:size]
    following[0] = place
    left[0] = size + 1 - place
    noise.set_state(state)


def signs(x: Tensor, noise: Generator) -> Tensor:
    """`binarize.sample_sign` of x, which must fit: as large, and laid out as it is."""
    from bnnlib.kernels.cpu import mersenne

    out = torch.empty_like(x)
    if x.is_contiguous():
        _in_a_line(mersenne.signs, [dispatch.flat(x), dispatch.flat(out)], noise)
    else:
        _by_image(mersenne.signs_of_images, x, out, noise)
    return out


def _in_a_line(kernel: Callable, arrays: list[np.ndarray], noise: Generator, *numbers) -> None:
    """Call a kernel on words and flat arrays of one length, piece by piece."""
    start = 0
    for some in words(noise, len(arrays[0]), WORDS_PER_PIECE):
        end = start + len(some)
        dispatch.run(kernel, [some, *(array[start:end] for array in arrays)], *numbers)
        start = end


def _by_image(kernel: Callable, x: Tensor, out: Tensor, noise: Generator) -> None:
    """Call a kernel on words and some images at a time; x, out: channels last."""
    from bnnlib.kernels.cpu.mersenne import PIXELS_PER_PIECE
    from bnnlib.kernels.cpu.parallel_for import in_parts

    given, drawn = (t.detach().movedim(1, -1).flatten(1, 2).numpy() for t in (x, out))
    _, pixels, channels = given.shape
    images = max(1, WORDS_PER_PIECE // x[0].numel())
    lines = -(-pixels // PIXELS_PER_PIECE)
    start = 0
    for some in words(noise, x.numel(), images * x[0].numel()):
        by_image = some.reshape(-1, channels, pixels)
        end = start + len(by_image)
        arrays = by_image, given[start:end], drawn[start:end]
        count = len(by_image) * lines
        in_parts(lambda *part, a=arrays: kernel(*a, *part), count, PIXELS_PER_PIECE)
        start = end


class Drop(torch.autograd.Function):
    """x, contiguous, each entry zeroed with probability `rate`, the rest divided by 1 - rate."""

    @staticmethod
    def forward(ctx, x: Tensor, rate: float, noise: Generator) -> Tensor:
        from bnnlib.kernels.cpu import mersenne

        out = torch.empty_like(x)
        keeps = torch.empty_like(x, dtype=torch.bool)
        arrays = [dispatch.flat(t) for t in (x, out, keeps)]
        _in_a_line(mersenne.drop, arrays, noise, rate, 1 - rate)
        ctx.left = 1 - rate
        ctx.save_for_backward(keeps)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        from bnnlib.kernels.cpu import mersenne

        (keeps,) = ctx.saved_tensors
        if not (dispatch.fits(grad) and grad.is_contiguous()):
            return grad / ctx.left * keeps, None, None
        out = torch.empty_like(grad)
        arrays = [dispatch.flat(t) for t in (grad, keeps, out)]
        dispatch.run(mersenne.drop_back, arrays, ctx.left)
        return out, None, None

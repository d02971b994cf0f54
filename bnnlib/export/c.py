"""A network as one C99 file without dependencies: `template.c`, filled with its numbers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnlib.export.network import HiddenLayer, SignNetwork, inside, pack_rows, trial_pictures

TEMPLATE = Path(__file__).with_name("template.c")
BLOCK = 64  # bits that a macro W writes; rows end on a multiple of it
WIDTH = 8  # numbers to a line


def source(network: SignNetwork) -> str:
    """The file's text, ASCII: about 3 characters for each byte of packed weights.

    Raises ValueError for a network whose scores follow a convolution directly.
    """
    if network.hidden[-1].convolves:
        raise ValueError("its scores follow a convolution directly, which no C file computes here")
    pictures = trial_pictures(network.inputs)
    hidden, scores = inside(network, pictures)
    parts = {
        "NAME": network.name.encode("ascii", "backslashreplace").decode(),
        "BITS": f"{network.bits:,}",
        "INPUTS": str(network.inputs),
        "SIZES": "\n".join(_sizes(network)),
        "TABLES": "\n\n".join(_tables(network)),
        "SCRATCH": _scratch(network),
        "LAYERS": "\n".join(map(_call, _places(network))),
        "TRIALS": str(len(pictures)),
        "PIXELS": _nested(map(_integers, pictures)),
        "TRIAL_BITS": _nested(_lines(map(_image, bits), 1) for bits in zip(*hidden, strict=True)),
        "TRIAL_SCORES": _nested(map(_floats, scores)),
    }
    text = TEMPLATE.read_text("ascii")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


@dataclass(frozen=True)
class _Place:
    """A hidden layer's place: its number, the layer before it, the side of its own sums."""

    number: int
    layer: HiddenLayer
    before: HiddenLayer | None
    side: int  # 1 for dense layers

    @property
    def units(self) -> int:
        return len(self.layer.signs)

    @property
    def places(self) -> int:
        """The number of places that its bits have, pooled."""
        return self.side**2 // (1 if self.layer.by_and is None else 4)


def _places(network: SignNetwork) -> list[_Place]:
    found = []
    before = None
    side = network.shape[-1]
    for number, layer in enumerate(network.hidden, 1):
        found.append(_Place(number, layer, before, side if layer.convolves else 1))
        before = layer
        side = side if layer.by_and is None else side // 2
    return found


def _sizes(network: SignNetwork) -> Iterator[str]:
    """Define the sizes, and where each hidden layer's bits begin."""
    yield f"#define BNN_INPUTS {network.inputs}"
    yield f"#define BNN_IMAGE_CHANNELS {network.shape[0] if len(network.shape) == 3 else 1}"
    begin = "0"
    for place in _places(network):
        yield f"#define BNN_AT_{place.number} {begin}"
        begin = f"(BNN_AT_{place.number} + {place.places} * WORDS({place.units}))"
    yield f"#define BNN_AT_LAST BNN_AT_{len(network.hidden)}"
    yield f"#define BNN_LAST {len(network.hidden[-1].signs)}"
    yield f"#define BNN_HIDDEN_WORDS {begin}"
    yield f"#define BNN_CLASSES {len(network.last.signs)}"
    channels = [layer.signs.shape[1] for layer in network.hidden[1:] if layer.convolves]
    yield f"#define BNN_CHANNELS {max(channels, default=1)}"


def _tables(network: SignNetwork) -> Iterator[str]:
    """Define the rows of weights, the thresholds and the scores by how many places differ."""
    for place in _places(network):
        number = place.number
        layer = place.layer
        yield _array("bnn_word", f"rows_{number}[]", _words(_rows(place)))
        yield _array("int32_t", f"thresholds_{number}[]", _integers(layer.thresholds))
        if layer.by_and is not None:
            yield _array("bnn_word", f"by_and_{number}[]", _words(layer.by_and))
    last = network.last
    yield _array("bnn_word", "rows_last[BNN_CLASSES * WORDS(BNN_LAST)]", _words(last.signs))
    yield _array("float", "table[BNN_CLASSES][BNN_LAST + 1]", _nested(map(_floats, last.scores)))


def _rows(place: _Place) -> np.ndarray:
    """Signs in the order of the inputs that they meet, (rows, K).

    The first layer's stay as they are; a further convolution's go by tap, then channel, those of a
    dense layer behind a convolution by place, then channel.
    """
    signs = place.layer.signs
    before = place.before
    if before is None:
        return signs.reshape(len(signs), -1)
    if place.layer.convolves:
        return signs.transpose(0, 2, 3, 1).reshape(-1, signs.shape[1])
    channels = len(before.signs)
    return signs.reshape(len(signs), channels, -1).transpose(0, 2, 1).reshape(-1, channels)


def _scratch(network: SignNetwork) -> str:
    """Declare the bits of a convolution before they are pooled, large enough for every one."""
    pooled = [place for place in _places(network) if place.layer.by_and is not None]
    if not pooled:
        return ""
    largest = max(pooled, key=lambda place: place.side**2 * -(-place.units // BLOCK))
    return f"    bnn_word full[{largest.side**2} * WORDS({largest.units})] = {{0}};\n"


def _call(place: _Place) -> str:
    """Call what computes a hidden layer's bits."""
    n = place.number
    layer = place.layer
    units = place.units
    side = place.side
    target = f"bits + BNN_AT_{n}" if layer.by_and is None else "full"
    given = f"bits + BNN_AT_{n - 1}, rows_{n}, thresholds_{n}"
    if place.before is None:
        kind = f"first_convolution({side}, " if layer.convolves else "first_dense("
        call = f"{kind}pixels, rows_{n}, thresholds_{n}, {units}, {target});"
    elif layer.convolves:
        call = f"convolution({given}, {side}, {units}, {layer.signs.shape[1]}, {target});"
    else:
        inputs = layer.signs.shape[1]
        channels = len(place.before.signs)
        words = f"{inputs // channels} * WORDS({channels})"
        call = f"dense({given}, {units}, {inputs}, {words}, {target});"
    if layer.by_and is not None:
        call += f"\n    pool(full, by_and_{n}, {side}, {units}, bits + BNN_AT_{n});"
    return "    " + call


def _image(bits: np.ndarray) -> str:
    """A layer's bits, (N,) or (N, H, W), place by place."""
    return _words(bits.reshape(len(bits), -1).T)


def _array(kind: str, declared: str, content: str) -> str:
    return f"static const {kind} {declared} = {{\n{content}\n}};"


def _nested(rows: Iterable[str]) -> str:
    return ",\n".join(f"{{\n{row}\n}}" for row in rows)


def _words(signs: np.ndarray) -> str:
    """(K,) or (rows, K) bool -> macros W, a row's last one filled with 0."""
    halves = pack_rows(np.atleast_2d(signs), BLOCK).view("<u4").reshape(-1, 2).tolist()
    return _lines((f"W(0x{low:08x}u, 0x{high:08x}u)" for low, high in halves), WIDTH // 2)


def _integers(values: np.ndarray) -> str:
    """Integers as C literals."""
    least = -(2**31)  # is none in C, but one less than one is
    return _lines(
        ("-2147483647 - 1" if value == least else str(value) for value in values.tolist()), WIDTH
    )


def _floats(values: np.ndarray) -> str:
    """float32 in hexadecimal, which loses nothing."""
    return _lines((f"{value.hex()}f" for value in values.tolist()), WIDTH)


def _lines(items: Iterable[str], width: int) -> str:
    listed = list(items)
    return ",\n".join(", ".join(listed[at : at + width]) for at in range(0, len(listed), width))

"""A network as one C99 file without dependencies: `template.c`, filled with its numbers."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bnnlib.export.network import SignNetwork, inside, pack_rows, trial_pictures

TEMPLATE = Path(__file__).with_name("template.c")
BLOCK = 64  # bits that a macro W writes; rows end on a multiple of it
WIDTH = 8  # numbers to a line


def source(network: SignNetwork) -> str:
    """The file's text, ASCII: about 3 characters for each byte of packed weights."""
    pictures = trial_pictures(network.inputs)
    hidden, scores = inside(network, pictures)
    parts = {
        "NAME": network.name.encode("ascii", "backslashreplace").decode(),
        "BITS": f"{network.bits:,}",
        "INPUTS": str(network.inputs),
        "SIZES": "\n".join(_sizes(network)),
        "TABLES": "\n\n".join(_tables(network)),
        "LAYERS": "\n".join(_calls(network)),
        "TRIALS": str(len(pictures)),
        "PIXELS": _nested(map(_integers, pictures)),
        "TRIAL_BITS": _nested(_lines(map(_words, bits), 1) for bits in zip(*hidden, strict=True)),
        "TRIAL_SCORES": _nested(map(_floats, scores)),
    }
    text = TEMPLATE.read_text("ascii")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _sizes(network: SignNetwork) -> Iterator[str]:
    """Define all sizes, and where each hidden layer's bits begin."""
    yield f"#define BNN_INPUTS {network.inputs}"
    begin = "0"
    for number, layer in enumerate(network.hidden, 1):
        yield f"#define BNN_UNITS_{number} {len(layer.signs)}"
        yield f"#define BNN_AT_{number} {begin}"
        begin = f"(BNN_AT_{number} + WORDS(BNN_UNITS_{number}))"
    yield f"#define BNN_AT_LAST BNN_AT_{len(network.hidden)}"
    yield f"#define BNN_LAST BNN_UNITS_{len(network.hidden)}"
    yield f"#define BNN_HIDDEN_WORDS {begin}"
    yield f"#define BNN_CLASSES {len(network.last.signs)}"


def _tables(network: SignNetwork) -> Iterator[str]:
    """Define the rows of weights, the thresholds and the scores by how many places differ."""
    before = "BNN_INPUTS"
    for number, layer in enumerate(network.hidden, 1):
        units = f"BNN_UNITS_{number}"
        yield _array("bnn_word", f"rows_{number}[{units} * WORDS({before})]", _words(layer.signs))
        yield _array("int32_t", f"thresholds_{number}[{units}]", _integers(layer.thresholds))
        before = units
    last = network.last
    yield _array("bnn_word", "rows_last[BNN_CLASSES * WORDS(BNN_LAST)]", _words(last.signs))
    yield _array("float", "table[BNN_CLASSES][BNN_LAST + 1]", _nested(map(_floats, last.scores)))


def _calls(network: SignNetwork) -> Iterator[str]:
    """Call `layer` for each hidden layer behind the first."""
    for number in range(2, len(network.hidden) + 1):
        yield f"    layer(bits + BNN_AT_{number - 1}, rows_{number}, thresholds_{number},"
        yield f"          BNN_UNITS_{number}, BNN_UNITS_{number - 1}, bits + BNN_AT_{number});"


def _array(kind: str, declared: str, content: str) -> str:
    return f"static const {kind} {declared} = {{\n{content}\n}};"


def _nested(rows: Iterable[str]) -> str:
    return ",\n".join(f"{{\n{row}\n}}" for row in rows)


def _words(signs: np.ndarray) -> str:
    """(..., K) bool -> macros W, a row's last one filled with 0."""
    halves = pack_rows(np.atleast_2d(signs), BLOCK).view("<u4").reshape(-1, 2).tolist()
    return _lines((f"W(0x{low:08x}u, 0x{high:08x}u)" for low, high in halves), WIDTH // 2)


def _integers(values: np.ndarray) -> str:
    """The least int32 is no literal in C, but one less than one."""
    least = -(2**31)
    return _lines(
        ("-2147483647 - 1" if value == least else str(value) for value in values.tolist()), WIDTH
    )


def _floats(values: np.ndarray) -> str:
    """float32 in hexadecimal, which loses nothing."""
    return _lines((f"{value.hex()}f" for value in values.tolist()), WIDTH)


def _lines(items: Iterable[str], width: int) -> str:
    listed = list(items)
    return ",\n".join(", ".join(listed[at : at + width]) for at in range(0, len(listed), width))

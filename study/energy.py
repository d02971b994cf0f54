"""One forward pass in bytes and picojoules: from the shapes of its layers, by the paper's tables.

An estimate, as the paper's own: its Tables 2 and 3 (context.energy in claims.toml) hold what an
addition, a multiplication and a 64-bit access to a memory of some size take at 45 nm. Counted is
the least that a pass can do:

- Weights, one or two numbers of normalization a unit, and activations cross to the arithmetic once
  a pass, in words of 64 bits. Sums stay where they are added, so that normalization and sign follow
  at once; `sum_bytes` has what storing them would add. Zeros that pad images count like pixels.
- The weights of all layers lie in the smallest memory that holds them together, the activations of
  a layer in the smallest that holds its inputs and outputs.
- Bias and batch normalization are folded: float32 multiplies and adds, int8 too in int32, binary
  compares a sum with an int32 threshold, which is charged as an addition.
- The tables have no gates. XNOR and the counting of a connection are charged as one int8 addition,
  which is more than a one-bit adder takes.
- The first layer of the binary network reads pixels, eight bit planes of them (equation 6). The
  last ones' scores are normalized in float32 in every network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from bnnlib.kernels.reference import PLANES, words_for
from study.claims import context
from study.recipes.shapes import Layer

WORD_BYTES = 8
HIDDEN = ("weights", "activations", "normalization", "arithmetic")
WITHOUT_NORMALIZATION = tuple(kind for kind in HIDDEN if kind != "normalization")
PARTS = ("first layer", *(f"hidden {kind}" for kind in HIDDEN), "last layer")
Amounts = dict[str, float]  # by kind, or by PARTS; bytes or pJ


@dataclass(frozen=True)
class Numbers:
    """Numbers of a network: their bits, and the pJ that it takes to work with them."""

    name: str
    bits: int  # of a weight and of an activation
    planes: int  # activations that a pixel is made of
    normalization_bits: int  # of a unit
    connection: float
    normalization: float  # of an output


@cache
def _prices() -> dict:
    """The paper's tables; reading claims.toml takes tens of milliseconds, a pass asks often."""
    return context()["energy"]


def numbers() -> tuple[Numbers, Numbers, Numbers]:
    """float32, int8 with int32 sums, and binary."""
    multiply, add = (_prices()[table] for table in ("multiply", "add"))
    real = multiply["float32"] + add["float32"]
    product, rescaled = multiply["int8"] + add["int32"], multiply["int32"] + add["int32"]
    return (
        Numbers("float32", 32, 1, 64, real, real),
        Numbers("int8", 8, 1, 64, product, rescaled),
        Numbers("binary", 1, PLANES, 32, add["int8"], add["int32"]),
    )


def weight_bytes(layer: Layer, kind: Numbers) -> int:
    """Each unit's weights padded to whole words."""
    return WORD_BYTES * layer.units * words_for(layer.terms * kind.bits)


def input_bytes(layer: Layer, kind: Numbers) -> int:
    return WORD_BYTES * words_for(layer.inputs * kind.bits * (kind.planes if layer.pixels else 1))


def layer_bytes(layer: Layer, kind: Numbers) -> Amounts:
    """Bytes that cross between memory and arithmetic in one pass of one image, by kind."""
    real = numbers()[0]
    after = real if layer.scores else kind  # what it is normalized in
    output_bytes = WORD_BYTES * words_for(layer.outputs * after.bits)
    return {
        "weights": weight_bytes(layer, kind),
        "activations": input_bytes(layer, kind) + output_bytes,
        "normalization": WORD_BYTES * words_for(layer.units * after.normalization_bits),
    }


def layer_energy(
    layer: Layer, kind: Numbers, held: float, dram: float, batch: int = 1
) -> Amounts:
    """pJ for one image of a batch, whose images share one reading of weights and normalization.

    held: bytes of weights and normalization that lie together. dram: pJ of a 64-bit access there.
    """
    moved = layer_bytes(layer, kind)
    constants = access(held, dram) / WORD_BYTES / batch
    variables = access(batch * moved["activations"], dram) / WORD_BYTES
    after = numbers()[0] if layer.scores else kind
    connections = layer.connections * (kind.planes if layer.pixels else 1)
    return {
        "weights": moved["weights"] * constants,
        "activations": moved["activations"] * variables,
        "normalization": moved["normalization"] * constants,
        "arithmetic": connections * kind.connection + layer.outputs * after.normalization,
    }


def access(held: float, dram: float) -> float:
    """pJ of a 64-bit access to the smallest memory that holds so many bytes."""
    table = _prices()["access_64_bit"]
    sizes = {size: pj for size, pj in table.items() if size != "DRAM"}
    return min((pj for size, pj in sizes.items() if held <= _bytes(size)), default=dram)


def _bytes(size: str) -> int:
    """Bytes of a memory whose size is written as in the table: 8K, 1M."""
    return int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]


def dram_range() -> tuple[float, float]:
    """pJ of a 64-bit access, from and to, as the table gives it."""
    low, high = _prices()["access_64_bit"]["DRAM"]
    return low, high


def constant_bytes(layers: Sequence[Layer], kind: Numbers) -> int:
    """All weights and normalizations, which a network holds from pass to pass."""
    each = [layer_bytes(layer, kind) for layer in layers]
    return sum(moved["weights"] + moved["normalization"] for moved in each)


def pass_bytes(layers: Sequence[Layer], kind: Numbers) -> Amounts:
    """Bytes that cross between memory and arithmetic for one image, by PARTS."""
    return _by_part(layers, [layer_bytes(layer, kind) for layer in layers])


def pass_energy(layers: Sequence[Layer], kind: Numbers, dram: float, batch: int = 1) -> Amounts:
    """pJ for one image of a batch, by PARTS."""
    held = constant_bytes(layers, kind)
    return _by_part(layers, [layer_energy(layer, kind, held, dram, batch) for layer in layers])


def _by_part(layers: Sequence[Layer], amounts: Sequence[Amounts]) -> Amounts:
    parts = dict.fromkeys(PARTS, 0.0)
    for layer, amount in zip(layers, amounts, strict=True):
        for kind, value in amount.items():
            parts[_part(layer, kind)] += value
    return parts


def _part(layer: Layer, kind: str) -> str:
    if layer.pixels:
        return "first layer"
    return "last layer" if layer.scores else f"hidden {kind}"


def layer_ratio(layer: Layer, dram: float, kinds: Sequence[str] = HIDDEN) -> float:
    """pJ of float32 over those of binary: a layer alone, one image, these kinds of amounts."""
    real, _, bits = (
        layer_energy(layer, each, constant_bytes([layer], each), dram) for each in numbers()
    )
    return sum(real[kind] for kind in kinds) / sum(bits[kind] for kind in kinds)


def sum_bytes(layers: Sequence[Layer]) -> int:
    """Bytes that cross in addition where each sum is stored, in 32 bits, and fetched again."""
    return sum(2 * 4 * layer.units * layer.positions for layer in layers)


def summary(layers: Sequence[Layer], batch: int) -> list[dict[str, str]]:
    """A row for each kind of numbers: bytes of one image; energy of one, and of each in a batch,
    from the lower to the higher price of DRAM, and float32's over it.
    """
    kinds = numbers()
    moved = {kind: sum(pass_bytes(layers, kind).values()) for kind in kinds}
    return [
        {
            "numbers": kind.name,
            "moved, one image (MB)": f"{moved[kind] / 1e6:.4g}",
            "float32 / it": f"{moved[kinds[0]] / moved[kind]:.3g} ×",
            "one image (µJ)": _range(layers, kind, 1),
            f"each of {batch} (µJ)": _range(layers, kind, batch),
        }
        for kind in kinds
    ]


def _range(layers: Sequence[Layer], kind: Numbers, batch: int) -> str:
    energies, real = (
        [sum(pass_energy(layers, each, dram, batch).values()) for dram in dram_range()]
        for each in (kind, numbers()[0])
    )
    low, high = sorted(f / o for f, o in zip(real, energies, strict=True))
    ratio = f"{low:.3g} ×" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} ×"
    return f"{microjoules(energies[0])} to {microjoules(energies[1])} ({ratio})"


def microjoules(pj: float) -> str:
    """Three digits, as a table shows them, and all before the point."""
    return f"{pj / 1e6:,.0f}" if pj >= 1e8 else f"{pj / 1e6:.3g}"

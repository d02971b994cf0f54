"""Tables of signed sums on the CPU, and look-ups in them, as LLVM vectors, for `lut_matmul`."""

from itertools import product

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bnnlib.kernels.cpu import processor
from bnnlib.kernels.cpu.llvm import BYTE, INT, LONG, SHORT, constant, load, loop, store, zeros

VECTOR_BYTES = 32  # LLVM cuts or joins vectors to the width of the processor
VECTORS_PER_ENTRY = 2
ENTRY_BYTES = VECTORS_PER_ENTRY * VECTOR_BYTES  # a tile of 16 float32 or 32 int16 lanes
# Outputs that take a step at a time: their sums stay in registers, their codes are one word. Eight
# additions hide the latency of one; without AVX-512 as many sums would fill all registers.
OUTPUTS_PER_STEP = 8 if processor.path() is processor.Path.AVX512 else 4
CODE_SCALE = 8  # codes are kept times this, which a processor's addressing undoes
SIGNS = list(product((-1, 1), repeat=4))  # code -> digits; the first row's digit is the slowest
TRITS = list(product((-1, 0, 1), repeat=3))
SIGN_TABLE_BYTES = len(SIGNS) * ENTRY_BYTES
TRIT_TABLE_BYTES = len(TRITS) * ENTRY_BYTES

_VECTOR_OF = {
    types.float32: ir.VectorType(ir.FloatType(), VECTOR_BYTES // 4),
    types.int16: ir.VectorType(SHORT, VECTOR_BYTES // 2),
}


def _adder(b: ir.IRBuilder, vector: ir.VectorType):
    return b.fadd if isinstance(vector.element, ir.FloatType) else b.add


def _signed_sums(b: ir.IRBuilder, rows: list, digits: list[tuple], zero) -> list:
    """The sum of digit * row for each tuple of digits in {-1, 0, 1}, as many as there are rows."""
    add = _adder(b, zero.type)
    if len(rows) == 1:
        minus = b.fsub if add == b.fadd else b.sub
        signed = {-1: minus(zero, rows[0]), 0: zero, 1: rows[0]}
        return [signed[digit] for (digit,) in digits]
    half = len(rows) // 2
    sums = []
    for cut in (slice(0, half), slice(half, None)):
        parts = sorted({some[cut] for some in digits})
        sums.append(dict(zip(parts, _signed_sums(b, rows[cut], parts, zero), strict=True)))
    return [add(sums[0][some[:half]], sums[1][some[half:]]) for some in digits]


def _table_builder(digits: list[tuple]):
    """An intrinsic that makes one vector of each entry of a table; `like` gives the number type.

    rows: the address of a group's first row, `stride` bytes before the next.
    """

    @intrinsic
    def build(typing, like, rows, stride, table):
        vector = _VECTOR_OF[like.dtype]

        def emit(context, b, signature, arguments):
            _, rows, stride, table = arguments
            loaded = []
            for _ in digits[0]:
                loaded.append(load(b, rows, vector))
                rows = b.add(rows, stride)
            for e, value in enumerate(_signed_sums(b, loaded, digits, zeros(vector))):
                store(b, value, table, e * ENTRY_BYTES)
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 3), emit

    return build


build_signs = _table_builder(SIGNS)
build_trits = _table_builder(TRITS)


@intrinsic
def add_entries(typing, like, table, advance, codes, step, sums, steps):
    """Add to OUTPUTS_PER_STEP rows of sums, ENTRY_BYTES each, one table entry for every step.

    Step s has its table at table + s * advance, and a byte for each row from codes + s * step on;
    addresses and strides are in bytes.
    """
    vector = _VECTOR_OF[like.dtype]
    entry = ir.VectorType(vector.element, VECTORS_PER_ENTRY * vector.count)
    word_of_codes = ir.IntType(8 * OUTPUTS_PER_STEP)
    places = range(0, OUTPUTS_PER_STEP * ENTRY_BYTES, ENTRY_BYTES)

    def emit(context, b, signature, arguments):
        _, table, advance, codes, step, sums, steps = arguments
        index, running, close = loop(b, steps, [load(b, sums, entry, place) for place in places])
        base = b.add(table, b.mul(index, advance))
        code = b.add(codes, b.mul(index, step))
        word = load(b, code, word_of_codes, align=OUTPUTS_PER_STEP)  # one load for all codes
        following = []
        for total in running:
            number = b.zext(b.trunc(word, BYTE), LONG)
            found = b.add(base, b.mul(number, constant(ENTRY_BYTES // CODE_SCALE)))
            following.append(_adder(b, entry)(total, load(b, found, entry)))
            word = b.lshr(word, ir.Constant(word_of_codes, 8))
        close(following)
        for total, place in zip(following, places, strict=True):
            store(b, total, sums, place)
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 6), emit


@intrinsic
def stream(typing, like, source, target):
    """Write ENTRY_BYTES to a target aligned to vectors, past the caches: nothing reads it soon."""
    vector = _VECTOR_OF[like.dtype]

    def emit(context, b, signature, arguments):
        _, source, target = arguments
        hint = b.module.add_metadata([ir.Constant(INT, 1)])
        for j in range(VECTORS_PER_ENTRY):
            value = load(b, source, vector, j * VECTOR_BYTES)
            written = store(b, value, target, j * VECTOR_BYTES, VECTOR_BYTES)
            written.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp), emit

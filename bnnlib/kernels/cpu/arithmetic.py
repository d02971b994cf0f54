"""Arithmetic of single float32 numbers that equals torch's to the last bit; LLVM vectorizes it."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

SQRT2_CARRY = 0x4AFB0C  # 2^24 - the 24-bit mantissa of sqrt(2), rounded up: see `nearest_power`
EXPONENT = -1 << 23


@intrinsic
def fma(typing, a, b, c):
    """a b + c in float32, rounded once: torch's lerp_ and addcmul_ end so."""

    def emit(context, b, signature, arguments):
        return b.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), emit


@intrinsic
def nearest_power(typing, x):
    """`binarize.ap2` of a float32, by the same operations on its bits."""

    def emit(context, b, signature, arguments):
        integer = ir.IntType(32)
        bits = b.bitcast(arguments[0], integer)
        carried = b.add(bits, ir.Constant(integer, SQRT2_CARRY))
        return b.bitcast(b.and_(carried, ir.Constant(integer, EXPONENT)), ir.FloatType())

    return types.float32(types.float32), emit

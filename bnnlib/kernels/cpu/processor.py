"""The instructions of the processor that Numba compiles for, which may be another than this one.

NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another one; then the host's features mean nothing. LLVM
knows what follows from a name and a list of features, so it is asked by way of what it makes of two
small functions.
"""

import re
from enum import StrEnum
from functools import cache

from llvmlite import binding, ir
from numba.core.registry import cpu_target

from bnnlib.kernels.cpu.llvm import BYTE, INT, call, splat

PROBE = """
target triple = "{triple}"
declare <8 x i64> @llvm.ctpop.v8i64(<8 x i64>)
declare <16 x i8> @llvm.ctpop.v16i8(<16 x i8>)
define <8 x i64> @words(<8 x i64> %x) {{
  %found = call <8 x i64> @llvm.ctpop.v8i64(<8 x i64> %x)
  ret <8 x i64> %found
}}
define <16 x i8> @bytes(<16 x i8> %x) {{
  %found = call <16 x i8> @llvm.ctpop.v16i8(<16 x i8> %x)
  ret <16 x i8> %found
}}
define <32 x i8> @sums(<32 x i8> %x, <32 x i8> %y) {{
  %found = add <32 x i8> %x, %y
  ret <32 x i8> %found
}}
"""


class Path(StrEnum):
    """Kinds of instructions of which products are made: a processor takes the first that it has."""

    AVX512 = "avx512"  # counts the bits of eight words at once (VPOPCNTDQ)
    AVX2 = "avx2"  # looks 32 bytes up at once
    NEON = "neon"  # counts the bits of 16 bytes at once, or looks them up
    GENERIC = "generic"  # what LLVM makes of a population count


# In the assembly of PROBE
SIGNS = {
    Path.AVX512: re.compile(r"\bvpopcntq\b.*%zmm"),
    Path.AVX2: re.compile(r"\bvpaddb\b.*%ymm"),
    Path.NEON: re.compile(r"\bcnt(\.16b|\s+v\d+\.16b)"),
}


@cache
def _path(triple: str, processor: str, features: str) -> Path:
    target = binding.Target.from_triple(triple)
    machine = target.create_target_machine(cpu=processor, features=features, opt=2)
    assembly = machine.emit_assembly(binding.parse_assembly(PROBE.format(triple=triple)))
    return next((path for path, sign in SIGNS.items() if sign.search(assembly)), Path.GENERIC)


def path_of(context) -> Path:
    """The path of a Numba target context, such as intrinsics are given."""
    return _path(*context.codegen().magic_tuple())


def target() -> tuple[str, str, str]:
    """The target that Numba compiles for in this process: triple, processor's name, features."""
    return cpu_target.target_context.codegen().magic_tuple()


def has(feature: str) -> bool:
    """Whether that target has a feature, by LLVM's name for it."""
    return f"+{feature}" in target()[2].split(",")


def path() -> Path:
    """The path of what Numba compiles in this process."""
    return _path(*target())


def pick(context, b: ir.IRBuilder, table, places):
    """table[places] for bytes: table 16 numbers, twice; places 32, each below 16."""
    return _PICKS.get(path_of(context), _by_selects)(b, table, places)


def _by_avx2(b: ir.IRBuilder, table, places):
    return call(b, "llvm.x86.avx2.pshuf.b", table.type, table, places)


def _by_neon(b: ir.IRBuilder, table, places):
    half = ir.VectorType(BYTE, 16)
    ways = [ir.Constant(ir.VectorType(INT, 16), list(range(i, i + 16))) for i in (0, 16)]
    one = b.shuffle_vector(table, table, ways[0])
    parts = [b.shuffle_vector(places, places, way) for way in ways]
    found = [call(b, "llvm.aarch64.neon.tbl1.v16i8", half, one, part) for part in parts]
    return b.shuffle_vector(*found, ir.Constant(ir.VectorType(INT, 32), list(range(32))))


def _by_selects(b: ir.IRBuilder, table, places):
    """Choose one of two entries for each bit of the places, the lowest first.

    This is slow: where LLVM has no look-up, products are not made of tables; but the kernels are
    compiled, and right.
    """
    entries = [splat(b, b.extract_element(table, INT(i)), 32) for i in range(16)]
    for bit in range(4):
        mask = b.and_(places, ir.Constant(places.type, [1 << bit] * 32))
        chosen = b.icmp_unsigned("!=", mask, ir.Constant(places.type, [0] * 32))
        pairs = zip(entries[::2], entries[1::2], strict=True)
        entries = [b.select(chosen, high, low) for low, high in pairs]
    return entries[0]


_PICKS = {Path.AVX512: _by_avx2, Path.AVX2: _by_avx2, Path.NEON: _by_neon}

"""Triton's PTX of int8 matrix products, rewritten for the binary tensor cores of NVIDIA's Hopper.

Hopper multiplies matrices of bits, as popcount(a & b), eight times as fast as matrices of int8, but
Triton knows the int8 instruction only. Both read the same bytes from the same places: a row of
32 int8 is a row of 256 bits. So a kernel is an ordinary int8 product over packed bytes, and the PTX
that Triton makes of it gets the other instruction's name before it is assembled:

    wgmma...m64nNk32.s32.s8.s8         ->  wgmma...m64nNk256.s32.b1.b1.and.popc
    mma.sync...m16n8k32...s32.s8.s8... ->  mma.sync...m16n8k256...s32.b1.b1.s32.and.popc  (16 rows)
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from triton import knobs

_RULES = (
    (
        r"(wgmma\.mma_async\.sync\.aligned\.m64n\d+)k32\.s32\.s8\.s8(?:\.satfinite)?",
        r"\1k256.s32.b1.b1.and.popc",
    ),
    (
        r"mma\.sync\.aligned\.m16n8k32\.row\.col(?:\.satfinite)?\.s32\.s8\.s8\.s32",
        r"mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc",
    ),
)
# A constant of the kernel, so that Triton's caches keep binaries made by different rules apart.
REWRITTEN = "b1-" + hashlib.sha256(repr(_RULES).encode()).hexdigest()[:16]
EMULATED = "emulated"
KERNELS = ("product_b1", "convolution_b1")  # whose PTX is rewritten
_launching = threading.Lock()


def to_b1(ptx: str) -> str:
    """PTX of the int8 product -> the same with the instruction for bits.

    Raises RuntimeError where an int8 instruction of a form unknown here, or none, was found.
    """
    found = 0
    for pattern, replacement in _RULES:
        ptx, times = re.subn(pattern, replacement, ptx)
        found += times
    if not found or re.search(r"mma[^\n]*\.s8\.s8", ptx):
        raise RuntimeError("Triton's PTX has no int8 matrix product of a form known here")
    return ptx


def _stages(backend=None, stages=None, options=None, language=None, capability=None):
    """Rewrite the PTX of KERNELS and of no other: Triton's hook, which names itself after 3.6."""
    if stages is None:
        return REWRITTEN, REWRITTEN
    plain = stages["ptx"]

    def ptx(source, metadata):
        made = plain(source, metadata)  # which also notes the kernel's name
        return to_b1(made) if metadata["name"] in KERNELS else made

    stages["ptx"] = ptx


@contextmanager
def rewriting() -> Iterator[None]:
    """A context in which KERNELS may be compiled and launched, one thread at a time.

    Triton's hooks are global. Without this one, Triton 3.6 would keep the int8 binary under the
    very same key.
    """
    with _launching:
        before = knobs.runtime.add_stages_inspection_hook
        knobs.runtime.add_stages_inspection_hook = _stages
        try:
            yield
        finally:
            knobs.runtime.add_stages_inspection_hook = before


@cache
def require_b1(kernel) -> None:
    """Raise RuntimeError where a compiled kernel lacks the instruction: its results are wrong."""
    if "b1.b1" not in kernel.asm["ptx"]:
        raise RuntimeError("a cached binary without b1.b1; clear Triton's cache (~/.triton/cache)")

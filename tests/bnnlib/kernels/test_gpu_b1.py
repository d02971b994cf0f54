"""Binary tensor cores: emulated in Triton's interpreter, compiled, and run on a Hopper GPU."""

import re
from pathlib import Path

import pytest
import torch

from bnnlib.kernels import reference

pytest.importorskip(
    "triton", reason="triton is not installed: no GPU kernels", exc_type=ImportError
)
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from test_gpu import (  # noqa: E402
    INTERPRETED,
    _filled_memory,  # noqa: F401
    compiled,
    interpret,
    outside_the_interpreter,
    signs,
    thresholds_at,
    tool,
)
from triton import knobs  # noqa: E402

from bnnlib.kernels import gpu, gpu_b1, int8, ptx_b1, tensor_cores  # noqa: E402

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
DEVICE = "cpu" if INTERPRETED else "cuda"
TILES = [gpu_b1.SMALL, gpu_b1.MEDIUM, gpu_b1.LARGE]


def where_kernels_run(test):
    """Collect a test on Hopper; elsewhere the interpreter's process runs it."""
    return test if INTERPRETED or HOPPER else None


@outside_the_interpreter
def test_in_the_interpreter():
    interpret(__file__)


def product(m: int, n: int, k: int):
    """Words, packed weights, their shape, and the sums, which the reference made."""
    x, w = reference.pack_signs(signs(m, k)), signs(n, k, seed=1)
    sums = reference.xnor_matmul(x, reference.pack_weights(w), (n, k), None)
    return x.to(DEVICE), gpu.pack_weights(w.to(DEVICE)), (n, k), sums


@where_kernels_run
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 1, 1), (37, 29, 101), (16, 130, 65), (33, 65, 1100), (130, 257, 130)]
)
def test_sums_and_bits(m, n, k):
    x, w, shape, sums = product(m, n, k)
    assert torch.equal(gpu_b1.matmul(x, w, shape).cpu(), sums)
    limits = thresholds_at(sums)
    bits = gpu_b1.matmul_signs(x, w, shape, limits.to(DEVICE)).cpu()
    assert torch.equal(bits, reference.pack_bits(sums >= limits))


@where_kernels_run
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("m", "n", "k"), [(20, 70, 2100), (3, 300, 128), (140, 70, 64)])
def test_every_tile(tile, m, n, k):
    x, w, _, sums = product(m, n, k)
    for limits in (None, thresholds_at(sums)):
        wanted = sums if limits is None else reference.pack_bits(sums >= limits)
        limits = None if limits is None else limits.to(DEVICE)
        out = gpu.new_output((m, n), limits, x)
        assert torch.equal(gpu_b1.multiply(x, w, out, limits, tile).cpu(), wanted)


@where_kernels_run
def test_all_bits_set_or_none():
    k = 1024
    for x, w, value in ((1, 1, k), (1, -1, -k), (-1, -1, k)):
        x, w = torch.full((40, k), float(x)), torch.full((9, k), float(w))
        made = gpu_b1.matmul(gpu.pack_signs(x.to(DEVICE)), gpu.pack_weights(w.to(DEVICE)), (9, k))
        assert (made == value).all()


@where_kernels_run
def test_words_that_lie_askew_and_rows_that_are_strided():
    x, w, shape, sums = product(40, 9, 128)
    askew = torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape)
    strided = torch.cat((x, x), 1)[:, :2]
    assert askew.data_ptr() % 16 and not strided.is_contiguous()
    for given in (askew, strided):
        assert torch.equal(gpu_b1.matmul(given, w, shape).cpu(), sums)


@where_kernels_run
def test_no_rows():
    _, w, shape, _ = product(1, 70, 65)
    assert gpu_b1.matmul(torch.empty(0, 2, dtype=torch.int64, device=DEVICE), w, shape).numel() == 0


@where_kernels_run
def test_the_comparison_sees_one_wrong_sum(monkeypatch):
    if INTERPRETED:  # which is slow
        monkeypatch.setattr(gpu_b1, "COMPARED", (20, 70, 130))
        monkeypatch.setattr(gpu, "xnor_matmul", reference.xnor_matmul)
    gpu_b1.compare(torch.device(DEVICE))
    right = gpu_b1.multiply

    def wrong(x, w, out, thresholds, tile):
        right(x, w, out, thresholds, tile)
        if tile == gpu_b1.LARGE:
            out[-1, -1] ^= 1
        return out

    monkeypatch.setattr(gpu_b1, "multiply", wrong)
    with pytest.raises(RuntimeError, match="tile .* differs"):
        gpu_b1.compare(torch.device(DEVICE))


@where_kernels_run
@pytest.mark.parametrize("m", [2, 12])
def test_where_it_is_not_available_the_popcount_kernel_multiplies(m, monkeypatch):
    monkeypatch.setattr(tensor_cores, "available", lambda device: False)
    monkeypatch.setattr(gpu_b1, "multiply", None)
    x, w, shape, sums = product(m, 9, 70)
    assert torch.equal(tensor_cores.xnor_matmul(x, w, shape, None).cpu(), sums)


@where_kernels_run
def test_where_it_is_available_it_multiplies_more_than_a_few_rows(monkeypatch):
    monkeypatch.setattr(tensor_cores, "available", lambda device: True)
    monkeypatch.setattr(gpu, "tile_kernel", None)
    x, w, shape, sums = product(12, 9, 70)
    limits = thresholds_at(sums)
    assert torch.equal(tensor_cores.xnor_matmul(x, w, shape, None).cpu(), sums)
    bits = tensor_cores.xnor_matmul(x, w, shape, limits.to(DEVICE)).cpu()
    assert torch.equal(bits, reference.pack_bits(sums >= limits))


@outside_the_interpreter
@pytest.mark.skipif(not HOPPER, reason="no GPU of capability 9.0: b1 was compiled, not run")
def test_available_on_hopper():
    assert tensor_cores.why_not("cuda") == "" and tensor_cores.available("cuda")


def test_tiles_grow_with_the_product():
    assert gpu_b1.tile_for(32, 8192) == gpu_b1.SMALL
    assert gpu_b1.tile_for(33, 8192) == gpu_b1.tile_for(1024, 1024) == gpu_b1.MEDIUM
    assert gpu_b1.tile_for(4096, 4096) == gpu_b1.LARGE


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (37, 29, 101), (17, 8, 64)])
def test_int8_product(m, n, k):
    x, w = (signs(rows, k, seed=rows).sign().to(torch.int8) for rows in (m, n))
    made = int8.int8_matmul(x, w)
    assert made.dtype == torch.int32 and torch.equal(made, x.int() @ w.int().t())


def test_not_available_without_a_hopper_gpu_and_why(monkeypatch):
    assert not tensor_cores.available("cpu") and "cpu" in tensor_cores.why_not("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8 + index, 0))
    for index in (0, 2):
        assert not tensor_cores.available(f"cuda:{index}")
        assert str((8 + index, 0)) in tensor_cores.why_not(f"cuda:{index}")


@pytest.mark.parametrize(
    "error", [RuntimeError("tile"), MemoryError("none"), AttributeError("api")]
)
def test_any_error_means_no_and_is_kept(error, monkeypatch):
    def fail(device):
        raise error

    tensor_cores._doubt.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(gpu_b1, "compare", fail)
    assert not tensor_cores.available("cuda:7") and str(error) in tensor_cores.why_not("cuda:7")
    tensor_cores._doubt.cache_clear()


TYPES = {name: "*i32" for name in ("counts", "sums", "thresholds")} | {"a": "*i8", "b": "*i8"}
SIXTEENS = "a b out counts sums thresholds N KB"


def compiled_b1(tile, capability: int, out: str, bits: bool = False):
    bm, bn, bk, warps, stages = tile
    constants = {"BM": bm, "BN": bn, "BK": bk, "GROUPED": gpu_b1.GROUP, "BITS": bits}
    constants["FORM"] = ptx_b1.REWRITTEN
    types, options = {**TYPES, "out": out}, {"num_warps": warps, "num_stages": stages}
    return compiled(gpu_b1.product_b1, capability, types, constants, SIXTEENS, **options)


def assert_multiplies_bits(kernel, ptx: str, sass: str, tmp_path: Path) -> None:
    """Every matrix instruction is the one for bits, the loop copies 16 bytes, nothing is spilt."""
    text = kernel.asm["ptx"]
    assert set(re.findall(r"^\s*(\w*mma[\w.]*sync[\w.]*\.s32[\w.]*)", text, re.M)) == {ptx}
    assert re.search(r"cp\.async\.c[ag]\.shared\.global[^;]*0x10", text)
    machine_code = tool(kernel, tmp_path, "-sass")
    assert set(re.findall(r"\b[A-Z]+MMA\.[\w.]+", machine_code)) == {sass}
    assert not re.search(r"\b(LDL|STL)\b", machine_code)
    assert re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", tool(kernel, tmp_path, "-res-usage"))


MMA_SYNC = "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc", "BMMA.168256.AND.POPC"


@outside_the_interpreter
@pytest.mark.parametrize(("out", "bits"), [("*i32", False), ("*fp16", False), ("*i32", True)])
@pytest.mark.parametrize(("tile", "n"), [(gpu_b1.LARGE, 128), (gpu_b1.MEDIUM, 64)])
def test_hopper_gets_warpgroup_instructions_for_bits(tile, n, out, bits, tmp_path):
    with ptx_b1.rewriting():
        kernel = compiled_b1(tile, 90, out, bits)
    ptx = f"wgmma.mma_async.sync.aligned.m64n{n}k256.s32.b1.b1.and.popc"
    assert_multiplies_bits(kernel, ptx, f"BGMMA.64x{n}x256.AND.POPC", tmp_path)


@outside_the_interpreter
@pytest.mark.parametrize(
    ("tile", "capability"),
    [
        (gpu_b1.SMALL, 90),
        *((tile, capability) for tile in TILES[:2] for capability in (80, 86, 89)),
    ],
)
def test_few_rows_and_older_gpus_get_warp_instructions_for_bits(tile, capability, tmp_path):
    with ptx_b1.rewriting():
        kernel = compiled_b1(tile, capability, "*i32", True)
    assert_multiplies_bits(kernel, *MMA_SYNC, tmp_path)


@triton.jit
def other_kernel(a, b, out):
    k = tl.arange(0, 64)
    at = k[:, None] * 64 + k[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at), out_dtype=tl.int32))


@outside_the_interpreter
def test_other_kernels_and_hooks_are_left_alone(monkeypatch, tmp_path):
    def hook(*arguments):
        return "other", "other"

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(knobs.runtime, "add_stages_inspection_hook", hook)
    with pytest.raises(ZeroDivisionError), ptx_b1.rewriting():
        types = {"a": "*i8", "b": "*i8", "out": "*i32"}
        ptx = compiled(other_kernel, 90, types, {}, "a b out").asm["ptx"]
        raise ZeroDivisionError
    assert ".s32.s8.s8" in ptx and "b1.b1" not in ptx
    assert knobs.runtime.add_stages_inspection_hook is hook


@outside_the_interpreter
def test_a_binary_that_was_not_rewritten_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    plain = compiled_b1(gpu_b1.SMALL, 90, "*i32")
    assert ".s32.s8.s8" in plain.asm["ptx"]
    with pytest.raises(RuntimeError, match="without b1.b1"):
        ptx_b1.require_b1(plain)


@pytest.mark.parametrize(
    "ptx",
    ["", "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {}", "wgmma.mma_async.f32.bf16.bf16"],
)
def test_ptx_of_an_unknown_form_is_refused(ptx):
    with pytest.raises(RuntimeError, match="form known here"):
        ptx_b1.to_b1(ptx)


def test_nothing_is_copied_where_nothing_is_added():
    words = torch.zeros(40, 4, dtype=torch.int64)
    bytes_of = torch.zeros(40, 48, dtype=torch.int8)
    assert gpu_b1.in_sixteens(words).data_ptr() == words.data_ptr()
    assert int8.int8_rows(bytes_of) is int8.int8_columns(bytes_of) is bytes_of
    assert int8.int8_rows(bytes_of[:3, :7]).shape == (32, 16)
    assert int8.int8_columns(bytes_of[:3, :7]).shape == (8, 16)

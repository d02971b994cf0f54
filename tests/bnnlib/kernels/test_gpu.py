"""The popcount kernels against plain torch: on a GPU, or in Triton's interpreter on the CPU.

Triton decides when it is imported whether it interprets, so without a GPU the comparisons run in a
process of their own; what a GPU would get is compiled in this one.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from bnnlib.kernels import reference

pytest.importorskip(
    "triton", reason="triton is not installed: no GPU kernels", exc_type=ImportError
)
import triton  # noqa: E402

from bnnlib.kernels import gpu, gpu_naive, gpu_packing  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda" if torch.cuda.is_available() else None
LARGEST = 2**31 - 1


def where_kernels_run(test):
    """Collect a test where DEVICE is one; elsewhere the interpreter's process runs it."""
    return test if DEVICE else None


def outside_the_interpreter(test):
    """Collect a test where Triton compiles."""
    return None if INTERPRETED else test


@pytest.fixture(autouse=True)
def _filled_memory():
    """New tensors hold the largest number instead of zeros: what isn't written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1, dtype=torch.int64).item() == 2**63 - 1
    yield
    torch.use_deterministic_algorithms(before)


def interpret(path: str) -> None:
    """Run a module of tests in Triton's interpreter, without a GPU."""
    if (
        triton.__version__.startswith("3.6.")
        and numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0"
    ):
        pytest.skip("Triton 3.6 does not interpret loops with NumPy 2.4 (triton issue 9171)")
    settings = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, env=settings, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout


def compiled(kernel, capability: int, arguments: dict, constants: dict, sixteens: str, **options):
    """A kernel as a GPU of that capability would get it; no GPU is needed.

    arguments: types of tensors, other arguments are int32. sixteens: names of the arguments that
    are multiples of 16.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else arguments.get(n, "i32") for n in names}
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in sixteens.split()}
    source = ASTSource(kernel, signature, constants, attributes)
    options["enable_fp_fusion"] = True  # said aloud, Triton 3.9 does not warn of other defaults
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def tool(kernel, tmp_path: Path, *arguments: str) -> str:
    """What cuobjdump, which comes with Triton, says of a compiled kernel."""
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not program.exists():
        pytest.skip("Triton came without cuobjdump: PTX checked, machine code not")
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    path = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}  # for nvdisasm
    command = [program, *arguments, binary]
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def signs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def packed(x: torch.Tensor) -> torch.Tensor:
    """Words or, of uint8, planes; by the reference."""
    return reference.pack_planes(x) if x.dtype == torch.uint8 else reference.pack_signs(x)


def thresholds_at(sums: torch.Tensor) -> torch.Tensor:
    """Of every column: one of its sums, 1 more, both ends of int32, and 0."""
    first = sums.reshape(-1, sums.shape[-1])[0].clone()
    first[1::5] += 1
    first[2::5], first[3::5], first[4::5] = -LARGEST - 1, LARGEST, 0
    return first


def same(name: str, x: torch.Tensor, w: torch.Tensor, *rest: int) -> None:
    """Assert that sums and bits of `gpu`'s and the reference's product or convolution are equal."""
    x, w, shape = packed(x), w.to(DEVICE), tuple(w.shape)
    ours, theirs = gpu.pack_weights(w), reference.pack_weights(w.cpu())
    assert [(tuple(part.shape), part.dtype) for part in ours] == gpu.layout(shape)
    sums = getattr(reference, name)(x, theirs, shape, *rest, None)
    for limits in (None, thresholds_at(sums)):
        wanted = getattr(reference, name)(x, theirs, shape, *rest, limits)
        limits = None if limits is None else limits.to(DEVICE)
        made = getattr(gpu, name)(x.to(DEVICE), ours, shape, *rest, limits)
        assert made.dtype == wanted.dtype and torch.equal(made.cpu(), wanted)


@outside_the_interpreter
def test_in_the_interpreter():
    interpret(__file__)


@where_kernels_run
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (3, 64), (2, 3, 130), (5, 1100), (0, 7)])
def test_packed_signs(dtype, shape):
    x = signs(*shape).to(dtype)
    x.view(-1)[:4] = torch.tensor([0.0, -0.0, float("nan"), -1e-300], dtype=dtype)[: x.numel()]
    assert torch.equal(gpu.pack_signs(x.to(DEVICE)).cpu(), reference.pack_bits(x >= 0))


@where_kernels_run
def test_packed_integers_and_strided_rows():
    x = (signs(6, 100) * 2).to(torch.int8)
    for given in (x, x.int(), x[::2, 3:], x.t()):
        assert torch.equal(gpu.pack_signs(given.to(DEVICE)).cpu(), reference.pack_signs(given))


@where_kernels_run
@pytest.mark.parametrize("shape", [(1,), (2, 3, 130), (0, 7)])
def test_packed_planes(shape):
    x = pixels(*shape)
    assert torch.equal(gpu.pack_planes(x.to(DEVICE)).cpu(), reference.pack_planes(x))


@where_kernels_run
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (2, 130, 65), (1, 29, 4200), (37, 29, 101), (33, 65, 128), (9, 70, 300)],
)
def test_products_of_signs(m, n, k):
    same("xnor_matmul", signs(m, k), signs(n, k, seed=1))


@where_kernels_run
def test_products_of_nothing():
    w, k = gpu.pack_weights(signs(3, 70).to(DEVICE)), 70
    x = torch.empty(0, 2, dtype=torch.int64, device=DEVICE)
    limits = torch.zeros(3, dtype=torch.int32, device=DEVICE)
    assert gpu.xnor_matmul(x, w, (3, k), None).shape == (0, 3)
    assert gpu.xnor_matmul(x, w, (3, k), limits).shape == (0, 1)
    assert gpu_naive.naive_matmul(x.float(), signs(3, 2).to(DEVICE)).shape == (0, 3)


@where_kernels_run
@pytest.mark.parametrize(("m", "n", "k"), [(2, 37, 101), (9, 29, 65)])
def test_products_of_planes(m, n, k):
    same("xnor_matmul", pixels(m, k), signs(n, k, seed=1))


@where_kernels_run
def test_tall_tiles(monkeypatch):
    monkeypatch.setattr(gpu, "PROCESSORS", 1)
    same("xnor_matmul", signs(130, 65), signs(29, 65, seed=1))


@where_kernels_run
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding"),
    [(70, (3, 3), 1, 1), (3, (5, 5), 2, 2), (130, (1, 1), 1, 0), (5, (3, 2), 3, 0)],
)
def test_convolutions_of_signs(channels, kernel, stride, padding):
    x, w = signs(2, 4, 5, channels), signs(7, channels, *kernel, seed=1)
    same("xnor_conv2d", x, w, stride, padding)


@where_kernels_run
def test_first_layer_of_planes_with_padding():
    same("xnor_conv2d", pixels(1, 5, 6, 3), signs(9, 3, 3, 3, seed=1), 1, 1)


@where_kernels_run
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (19, 37, 33)])
def test_the_naive_product_of_integers(m, n, k):
    a, b = (signs(m, k) * 9).round(), (signs(n, k, seed=1) * 9).round()
    assert torch.equal(gpu_naive.naive_matmul(a.to(DEVICE), b.to(DEVICE)).cpu(), a @ b.t())


def test_sizes_past_31_bits_are_refused_by_name():
    word = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"^{2**31 + 127} pixels.* {2**31}$"):
        gpu.xnor_conv2d(word.expand(2**16, 2**15, 1, 1), [word], (1, 1, 1, 1), 1, 0, None)
    with pytest.raises(ValueError, match=f"^{2**31} as the largest sum"):
        gpu.xnor_matmul(word[0, 0], [word], (1, 2**30), None)
    with pytest.raises(ValueError, match=f"^{2**31 + 3} rows"):
        gpu.pack_signs(torch.zeros(1, 1).expand(2**31, 1))


WORDS = {name: "*i32" for name in ("x", "w", "tap_sums", "out", "thresholds")}
PLAIN_MATRICES = dict.fromkeys(("P", "H", "W", "HO", "WO", "KH", "KW", "STRIDE"), 1)


def assert_counts(kernel) -> None:
    """One instruction counts the ones of a word: nothing of the shifts and sums is left."""
    assert re.search(r"\bpopc\.b32\b", kernel.asm["ptx"])
    assert str(0x01010101) not in kernel.asm["ptx"] and str(0x55555555) not in kernel.asm["ptx"]


TILES = [(PLAIN_MATRICES, *tile, False) for tile in ((128, 4), (128, 2), (32, 4), (32, 2))]
PLANES = {name: 1 for name in PLAIN_MATRICES if name != "P"}  # 8 of them, of a dense first layer
TILES += [(PLANES, 128, 4, False), (PLANES, 32, 2, False), ({}, 32, 1, True), ({}, 32, 1, False)]


@outside_the_interpreter
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize(("known", "tile", "step", "padded"), TILES)
def test_tiles_compile_to_popc_and_spill_nothing(
    known, tile, step, padded, bits, capability, tmp_path
):
    constants = {"BM": tile, "BN": 64, "STEP": step, "PADDED": padded, "BITS": bits, **known}
    kernel = compiled(gpu.tile_kernel, capability, WORDS, constants, "x w out N PIXELS")
    assert_counts(kernel)
    usage = tool(kernel, tmp_path, "-res-usage")
    older = triton.__version__.startswith(("3.6.", "3.7."))
    if older and (capability, padded, bits) == (80, True, False):
        pytest.xfail("Triton 3.6 and 3.7 keep 24 bytes of padded convolutions in memory here")
    assert re.search(r"STACK:0 .*LOCAL:0 ", usage)


def test_tiles_are_those_that_were_compiled():
    """The compile-only test above is of what products ask for."""
    compiled_ones = {tuple(given[1:3]) for given in TILES}
    asked = {
        gpu.tile(outputs, 4096, matrix, words)
        for outputs in (1, 10**6)
        for matrix in (True, False)
        for words in (2, 4)
    }
    assert asked == compiled_ones


@where_kernels_run
def test_columns_of_dense_weights_are_made_once_and_follow_the_words():
    x, w = packed(signs(12, 70)).to(DEVICE), gpu.pack_weights(signs(9, 70, seed=1).to(DEVICE))
    first = gpu.xnor_matmul(x, w, (9, 70), None)
    kept = w[0].columns[0]
    assert torch.equal(gpu.xnor_matmul(x, w, (9, 70), None), first) and w[0].columns[0] is kept
    w[0].copy_(gpu.pack_weights(signs(9, 70, seed=2).to(DEVICE))[0])
    again = gpu.xnor_matmul(x, [w[0].clone(), w[1]], (9, 70), None)
    assert torch.equal(gpu.xnor_matmul(x, w, (9, 70), None), again) and not (again == first).all()


@outside_the_interpreter
@pytest.mark.parametrize(("planes", "bits"), [(1, True), (8, False)])
def test_rows_compile_to_popc(planes, bits):
    constants = {"P": planes, "BN": 32, "BK": 128, "BITS": bits}
    assert_counts(compiled(gpu.row_kernel, 90, WORDS, constants, "x w out N CW"))


@outside_the_interpreter
@pytest.mark.parametrize(("number", "planes"), [("*fp32", 1), ("*bf16", 1), ("*u8", 8)])
def test_packing_compiles(number, planes):
    constants = {"P": planes, "BM": 1, "BW": 64}
    types = {"x": number, "out": "*i32"}
    assert compiled(gpu_packing.pack_kernel, 90, types, constants, "x out").asm["cubin"]


@outside_the_interpreter
def test_the_naive_kernel_has_float32_multiply_adds_and_no_tensor_cores():
    types = dict.fromkeys(("a", "b", "out"), "*fp32")
    kernel = gpu_naive.naive_kernel
    ptx = compiled(kernel, 90, types, {"TILE": 16}, "a b out", num_warps=8).asm["ptx"]
    assert "fma.rn.f32" in ptx and "mma." not in ptx and "tf32" not in ptx

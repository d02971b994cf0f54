"""Binary tensor cores' convolution: emulated in Triton's interpreter, and compiled."""

import pytest
import torch

pytest.importorskip(
    "triton", reason="triton is not installed: no GPU kernels", exc_type=ImportError
)
from test_gpu import (  # noqa: E402
    _filled_memory,  # noqa: F401
    compiled,
    interpret,
    outside_the_interpreter,
    packed,
    signs,
    thresholds_at,
)
from test_gpu_b1 import (  # noqa: E402
    DEVICE,
    HOPPER,
    MMA_SYNC,
    assert_multiplies_bits,
    where_kernels_run,
)

from bnnlib.kernels import gpu, gpu_b1_convolution, ptx_b1, reference, tensor_cores  # noqa: E402


@outside_the_interpreter
def test_in_the_interpreter():
    interpret(__file__)


@where_kernels_run
@pytest.mark.parametrize(
    ("images", "channels", "filters"),
    [((2, 4, 5), 128, 70), ((1, 1, 3), 100, 5), ((2, 1, 1), 128, 130), ((1, 9, 16), 256, 64)],
)
def test_sums_and_bits_with_zeros_around(images, channels, filters):
    """Pixels that touch no, one, two, three and all four borders."""
    x, w = packed(signs(*images, channels)), signs(filters, channels, 3, 3, seed=1)
    shape, weights = tuple(w.shape), gpu.pack_weights(w.to(DEVICE))
    sums = reference.xnor_conv2d(x, reference.pack_weights(w), shape, 1, 1, None)
    assert gpu_b1_convolution.fits(x, shape, 1, 1)
    for limits in (None, thresholds_at(sums)):
        wanted = sums if limits is None else reference.pack_bits(sums >= limits)
        limits = None if limits is None else limits.to(DEVICE)
        made = gpu_b1_convolution.xnor_conv2d(x.to(DEVICE), weights, shape, limits)
        assert made.dtype == wanted.dtype and torch.equal(made.cpu(), wanted)


@where_kernels_run
def test_the_comparison_sees_one_wrong_border(monkeypatch):
    if not HOPPER:  # the interpreter is slow
        monkeypatch.setattr(gpu, "xnor_conv2d", reference_conv2d)
    gpu_b1_convolution.compare(torch.device(DEVICE))
    right = gpu_b1_convolution.border_sums

    def wrong(taps):
        made = right(taps)
        made[gpu_b1_convolution.TOP | gpu_b1_convolution.LEFT] += 1
        return made

    monkeypatch.setattr(gpu_b1_convolution, "border_sums", wrong)
    with pytest.raises(RuntimeError, match="differ from popcount"):
        gpu_b1_convolution.compare(torch.device(DEVICE))


def reference_conv2d(x, w, shape, stride, padding, thresholds):
    """The reference, given the weights as `gpu` packs them."""
    columns = w[0].permute(2, 0, 1).contiguous().view(torch.int64)
    words = columns.view(shape[0], 3, 3, -1)
    theirs = reference.pack_weights(reference.unpack_signs(words, shape[1]).movedim(-1, 1))
    return reference.xnor_conv2d(x, theirs, shape, stride, padding, thresholds)


def test_border_sums_are_of_the_taps_inside():
    taps = torch.arange(9, dtype=torch.int32)[:, None] * torch.tensor([1, 10], dtype=torch.int32)
    sums = gpu_b1_convolution.border_sums(taps)
    assert sums.dtype == torch.int32 and sums[:, 1].tolist() == [10 * s for s in sums[:, 0]]
    assert sums[0, 0] == 36 and sums[15, 0] == 4  # all taps; the one in the middle
    assert sums[1, 0] == 3 + 4 + 5 + 6 + 7 + 8 and sums[2 + 4, 0] == 1 + 2 + 4 + 5


@pytest.mark.parametrize(
    ("words", "kernel", "stride", "padding"),
    [(1, (3, 3), 1, 1), (6, (3, 3), 1, 1), (2, (5, 5), 1, 1), (2, (3, 3), 2, 1), (2, (3, 3), 1, 0)],
)
def test_other_convolutions_are_the_popcount_kernel_s(words, kernel, stride, padding, monkeypatch):
    x, shape = torch.zeros(1, 8, 8, words, dtype=torch.int64), (4, 64 * words, *kernel)
    monkeypatch.setattr(tensor_cores, "available", lambda device: True)
    monkeypatch.setattr(gpu, "xnor_conv2d", lambda *given: "popcount")
    assert tensor_cores.xnor_conv2d(x, [], shape, stride, padding, None) == "popcount"


def test_a_convolution_of_signs_is_the_tensor_cores_where_they_are(monkeypatch):
    x, shape = torch.zeros(1, 8, 8, 2, dtype=torch.int64), (4, 128, 3, 3)
    monkeypatch.setattr(gpu_b1_convolution, "xnor_conv2d", lambda *given: "bits")
    monkeypatch.setattr(gpu, "xnor_conv2d", lambda *given: "popcount")
    for there, wanted in ((True, "bits"), (False, "popcount")):
        monkeypatch.setattr(tensor_cores, "available", lambda device, there=there: there)
        assert tensor_cores.xnor_conv2d(x, [], shape, 1, 1, None) == wanted


def compiled_convolution(size: int, capability: int, bits: bool):
    own = gpu_b1_convolution
    constants = {"CB": size, "BM": own.BM, "BN": own.BN, "BK": own.step(size), "BITS": bits}
    constants["FORM"] = ptx_b1.REWRITTEN
    names = ("counts", "borders", "thresholds", "out")
    types = {"x": "*i8", "w": "*i8", **dict.fromkeys(names, "*i32")}
    sixteens = "x w out counts borders thresholds N"
    options = {"num_warps": own.WARPS, "num_stages": own.STAGES}
    with ptx_b1.rewriting():
        return compiled(own.convolution_b1, capability, types, constants, sixteens, **options)


@outside_the_interpreter
@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_hopper_gets_warpgroup_instructions_for_bits(size, bits, tmp_path):
    ptx = "wgmma.mma_async.sync.aligned.m64n128k256.s32.b1.b1.and.popc"
    kernel = compiled_convolution(size, 90, bits)
    assert_multiplies_bits(kernel, ptx, "BGMMA.64x128x256.AND.POPC", tmp_path)


@outside_the_interpreter
def test_older_gpus_get_warp_instructions_for_bits(tmp_path):
    assert_multiplies_bits(compiled_convolution(32, 80, True), *MMA_SYNC, tmp_path)

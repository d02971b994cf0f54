"""Products of packed signs: the reference against float64, the ops in torch, what they refuse."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bnnlib.kernels import dispatch, operands, reference
from bnnlib.xnor import (
    PackedWeights,
    pack_planes,
    pack_signs,
    pack_weights,
    unpack_signs,
    xnor_conv2d,
    xnor_matmul,
)

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
BOTH = pytest.mark.parametrize("pack", [reference.pack_signs, pack_signs], ids=["reference", "op"])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Float32 with zeros of both signs among them."""
    x = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()
    return x * torch.tensor([1.0, -1.0]).repeat(x.numel())[: x.numel()].view(shape)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def signs(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).double()


# What words are


@BOTH
@pytest.mark.parametrize("place", [0, 1, 62, 63, 64, 126, 127, 128, 129])
def test_bit_j_of_word_i_is_element_64_i_plus_j(pack, place):
    x = torch.full((130,), -1.0)
    x[place] = 1.0
    words = [0, 0, 0]
    words[place // 64] = -(2**63) if place % 64 == 63 else 2 ** (place % 64)
    assert pack(x).tolist() == words


@BOTH
@pytest.mark.parametrize(
    ("k", "words"),
    [(1, [1]), (63, [2**63 - 1]), (64, [-1]), (65, [-1, 1]), (128, [-1, -1]), (130, [-1, -1, 3])],
)
def test_bits_behind_the_last_element_are_0(pack, k, words):
    assert pack(torch.ones(2, k)).tolist() == [words, words]


@BOTH
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [6, 64, 70])
def test_both_zeros_are_plus_one_and_infinities_have_signs(pack, dtype, k):
    tiny = torch.finfo(dtype).tiny / 4  # subnormal
    x = torch.full((k,), -1.0, dtype=dtype)
    x[-6:] = torch.tensor([0.0, -0.0, tiny, -tiny, torch.inf, -torch.inf], dtype=dtype)
    assert unpack_signs(pack(x), k)[-6:].tolist() == [1, 1, 1, -1, 1, -1]
    assert (unpack_signs(pack(x), k)[:-6] == -1).all()


@settings(max_examples=30)
@given(k=st.integers(1, 200), rows=st.integers(0, 3), seed=st.integers(0, 2**16))
def test_unpacking_undoes_packing(k, rows, seed):
    x = numbers(rows, 2, k, seed=seed)
    words = reference.pack_signs(x)
    assert words.shape == (rows, 2, -(-k // 64)) and words.dtype == torch.int64
    for unpack in (reference.unpack_signs, unpack_signs):
        assert unpack(words, k).dtype == torch.int8
        assert torch.equal(unpack(words, k).double(), signs(x))


@pytest.mark.parametrize("pack", [reference.pack_planes, pack_planes], ids=["reference", "op"])
@pytest.mark.parametrize("k", [1, 64, 100, 256])
def test_plane_i_holds_the_bits_of_weight_2_to_the_i(pack, k):
    x = torch.arange(256, dtype=torch.uint8).roll(-99)[:k].expand(2, k)
    planes = pack(x)
    assert planes.shape == (2, 8, -(-k // 64))
    for i in range(8):
        bits = torch.tensor([p >> i & 1 for p in x[0].tolist()])
        assert torch.equal(planes[1, i], reference.pack_signs(2 * bits - 1))
    assert torch.equal(reference.integers(planes, k, True), 2 * x.double() - 255)


# The reference's products against float64


def inputs(shape: tuple[int, ...], planes: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Packed inputs, and the integers in float64 that they stand for."""
    if planes:
        x = pixels(*shape, seed=seed)
        return reference.pack_planes(x), 2 * x.double() - 255
    x = numbers(*shape, seed=seed)
    return reference.pack_signs(x), signs(x)


def check_thresholds(product, sums: Tensor) -> None:
    """product(thresholds) is words of [sum >= threshold], 0 behind; also where they are equal."""
    some = sums.flatten(0, -2)[-1]
    for thresholds in (some, some + 1):
        words = product(thresholds)
        bits = reference.unpack_bits(words, 64 * words.shape[-1])
        padding = bits.shape[-1] - len(thresholds)
        assert padding < 64 and torch.equal(bits, F.pad(sums >= thresholds, (0, padding)))


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 7, 64), (3, 70, 65), (2, 64, 300)])
def test_reference_product_is_the_float64_product_of_signs(m, n, k, planes):
    x, integers = inputs((m, k), planes, 0)
    weight = numbers(n, k, seed=1)
    packed = reference.pack_weights(weight)
    sums = reference.xnor_matmul(x, packed, (n, k), None)
    assert sums.dtype == torch.int32
    assert torch.equal(sums.double(), integers @ signs(weight).t())
    check_thresholds(lambda t: reference.xnor_matmul(x, packed, (n, k), t), sums)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (66, 65, 1, 1), (2, 64, 2, 5)], ids=str)
def test_reference_convolution_is_the_float64_one_padded_with_zeros(shape, stride, padding, planes):
    x, integers = inputs((2, 7, 6, shape[1]), planes, 2)
    weight = numbers(*shape, seed=3)
    packed = reference.pack_weights(weight)
    sums = reference.xnor_conv2d(x, packed, shape, stride, padding, None)
    images = F.pad(integers.movedim(-1, 1), [padding] * 4)  # with 0
    expected = F.conv2d(images, signs(weight), stride=stride).movedim(1, -1)
    assert sums.dtype == torch.int32 and torch.equal(sums.double(), expected)
    check_thresholds(lambda t: reference.xnor_conv2d(x, packed, shape, stride, padding, t), sums)


# In torch: fake tensors, export, compile


class Net(nn.Module):
    """Packs images, convolves, multiplies twice, the first two with thresholds."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (
            pack_weights(numbers(*shape, seed=4)) for shape in ((70, 3, 3, 3), (5, 9 * 128), (4, 5))
        )
        self.register_buffer("low", torch.arange(70, dtype=torch.int32) % 9 - 4)
        self.register_buffer("high", torch.zeros(5, dtype=torch.int32))

    def forward(self, images: Tensor) -> Tensor:
        words = pack_signs(images.movedim(1, -1))
        words = xnor_conv2d(words, self.first, 2, 1, self.low)
        words = xnor_matmul(words.flatten(1), self.second, self.high)
        return xnor_matmul(words, self.third) + unpack_signs(words, 5).sum(1, keepdim=True)


IMAGES = numbers(6, 3, 5, 5)


def test_an_exported_network_computes_the_same_for_any_batch():
    net = Net()
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(net, (IMAGES,), dynamic_shapes=batch).module()
    assert net(IMAGES).unique().numel() > 2
    for images in (IMAGES, IMAGES[:4], numbers(9, 3, 5, 5, seed=5)):
        assert torch.equal(exported(images), net(images))


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_network_computes_the_same(dynamic):
    torch.compiler.reset()
    net = Net()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for images in (IMAGES, IMAGES[:4]):
        assert torch.equal(compiled(images), net(images))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shape", [(5, 70), (5, 70, 3, 3)], ids=str)
def test_weights_can_be_packed_in_a_compiled_function(dynamic, shape):
    torch.compiler.reset()

    def function(x, weight):
        if weight.dim() == 2:
            return xnor_matmul(pack_signs(x[0, 0]), pack_weights(weight))
        return xnor_conv2d(pack_signs(x), pack_weights(weight), padding=1)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    x, weight = numbers(2, 4, 5, 70), numbers(*shape, seed=1)
    assert torch.equal(compiled(x, weight), function(x, weight))


def calls() -> dict:
    """An example call of each op, by name."""
    words, images = pack_signs(numbers(4, 70)), pack_signs(numbers(2, 5, 6, 70))
    planes, plane_images = pack_planes(pixels(4, 70)), pack_planes(pixels(2, 5, 6, 70))
    dense, filters = pack_weights(numbers(66, 70)), pack_weights(numbers(66, 70, 3, 3))
    thresholds, ops = torch.zeros(66, dtype=torch.int32), torch.ops.bnnlib
    matmul = [(x, dense.tensors, dense.shape) for x in (words, planes)]
    conv2d = [(x, filters.tensors, filters.shape, 2, 1) for x in (images, plane_images)]
    return {
        "pack_signs": (ops.pack_signs, (numbers(3, 2, 70).bfloat16().transpose(0, 1),)),
        "pack_planes": (ops.pack_planes, (pixels(3, 2, 70),)),
        "unpack_signs": (ops.unpack_signs, (images, 70)),
        "pack_weights": (ops.pack_weights, (numbers(66, 70), False)),
        "pack_filters": (ops.pack_weights, (numbers(66, 70, 3, 3), True)),
        "matmul": (ops.xnor_matmul, (*matmul[0], None)),
        "matmul_planes": (ops.xnor_matmul, (*matmul[1], None)),
        "matmul_thresholds": (ops.xnor_matmul, (*matmul[0], thresholds)),
        "conv2d": (ops.xnor_conv2d, (*conv2d[0], None)),
        "conv2d_planes": (ops.xnor_conv2d, (*conv2d[1], None)),
        "conv2d_thresholds": (ops.xnor_conv2d, (*conv2d[1], thresholds)),
    }


CALLS = pytest.mark.parametrize("name", calls())


@CALLS
def test_schemas_and_fake_tensors_agree_with_the_ops(name):
    op, arguments = calls()[name]
    torch.library.opcheck(op.default, arguments, test_utils=("test_schema", "test_faketensor"))


@CALLS
def test_ops_run_on_meta_tensors_too(name):
    op, arguments = calls()[name]
    with torch.device("meta"):
        shape = arguments[2] if "xnor" in str(op) else None
        weights = pack_weights(torch.empty(shape)).tensors if shape else None

    def meta(x):
        return weights if isinstance(x, list) else x.to("meta") if isinstance(x, Tensor) else x

    expected, found = op(*arguments), op(*map(meta, arguments))
    if "pack_weights" not in str(op):  # whose layout is the device's own
        assert found.device.type == "meta"
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


# What they refuse


def words(*shape: int, **options) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, **options)


def dense(*shape: int) -> PackedWeights:
    return pack_weights(torch.ones(*(shape or (3, 70))))


def ints(*shape: int, dtype: torch.dtype = torch.int32, **options) -> Tensor:
    return torch.zeros(shape, dtype=dtype, **options)


MATMUL = torch.ops.bnnlib.xnor_matmul
FILTERS = (3, 70, 3, 3)
REFUSED = [  # a call, and what its error must say
    (lambda: pack_signs(ints(2, 3, dtype=torch.int64)), "torch.float32.*is torch.int64"),
    (lambda: pack_signs(ints(2, 3, dtype=torch.bool)), "torch.float32.*is torch.bool"),
    (lambda: pack_signs(torch.ones(2, 0)), r"last axis.*\(2, 0\)"),
    (lambda: pack_signs(torch.tensor(1.0)), r"last axis.*\(\)"),
    (lambda: pack_planes(torch.ones(2, 3)), "uint8.*torch.float32"),
    (lambda: pack_planes(ints(2, 0, dtype=torch.uint8)), r"last axis.*\(2, 0\)"),
    (lambda: unpack_signs(torch.ones(2, 3), 3), "words.*int64.*torch.float32"),
    (lambda: unpack_signs(words(2, 2), 64), r"1 words a row for 64 signs.*\(2, 2\)"),
    (lambda: unpack_signs(words(2, 2), 129), r"3 words a row for 129 signs.*\(2, 2\)"),
    (lambda: unpack_signs(words(2, 0), 0), "at least 1 sign.*0"),
    (lambda: pack_weights(ints(2, 3, dtype=torch.int64)), "real.*torch.int64"),
    (lambda: pack_weights(torch.ones(2, 3, 4)), r"\(N, K\) or \(N, C, kh, kw\).*\(2, 3, 4\)"),
    (lambda: pack_weights(torch.ones(0, 3)), r"none of them 0.*\(0, 3\)"),
    (lambda: pack_weights(torch.ones(2, 3, 0, 1)), r"none of them 0.*\(2, 3, 0, 1\)"),
    (lambda: xnor_matmul(torch.ones(4, 2), dense()), "x.*int64.*torch.float32"),
    (lambda: xnor_matmul(words(4, 3), dense()), r"2 words a row for 70 signs.*\(4, 3\)"),
    (lambda: xnor_matmul(words(2), dense()), r"\(M, 2\) or \(M, 8, 2\), not \(2,\)"),
    (lambda: xnor_matmul(words(4, 7, 2), dense()), r"\(M, 2\) or \(M, 8, 2\), not \(4, 7, 2\)"),
    (lambda: xnor_matmul(words(4, 2), dense(*FILTERS)), r"\(N, K\).*\(3, 70, 3, 3\)"),
    (lambda: xnor_matmul(words(4, 2, device="meta"), dense()), "x is on meta.*weights on cpu"),
    (
        lambda: xnor_matmul(words(4, 2), dense(), ints(3, device="meta")),
        "x is on cpu.*thresholds on meta",
    ),
    (lambda: xnor_matmul(words(4, 2), dense(), ints(4)), r"int32 \(3,\).*torch.int32 \(4,\)"),
    (lambda: xnor_matmul(words(4, 2), dense(), ints(1, 3)), r"int32 \(3,\).*torch.int32 \(1, 3\)"),
    (lambda: xnor_matmul(words(4, 2), dense(), words(3)), r"int32 \(3,\).*torch.int64 \(3,\)"),
    (
        lambda: MATMUL(words(4, 2), dense(200, 70).tensors, (3, 70), None),
        r"weights \(3, 70\) are packed as \[\(\(1, .*not as \[\(\(2, ",
    ),
    (
        lambda: MATMUL(words(4, 2), dense(*FILTERS).tensors, (3, 70), None),
        r"weights \(3, 70\) are packed as .*not as .*\(9, 128\)",
    ),
    (lambda: MATMUL(words(4, 2), [words(3, 2)], (3, 70), None), r"not as \[\(\(3, 2\), torch.int6"),
    (lambda: MATMUL(words(4, 2), [], (3, 70), None), r"weights \(3, 70\).*not as \[\]"),
    (lambda: MATMUL(words(4, 0), dense().tensors, (3, 0), None), "at least 1 sign.*0"),
    (lambda: xnor_conv2d(ints(2, 5, 5, 2), dense(*FILTERS)), "x.*int64.*torch.int32"),
    (lambda: xnor_conv2d(words(2, 5, 5, 1), dense(*FILTERS)), r"2 words.*70 signs.*\(2, 5, 5, 1\)"),
    (lambda: xnor_conv2d(words(5, 5, 2), dense(*FILTERS)), r"\(B, H, W, words\).*\(5, 5, 2\)"),
    (lambda: xnor_conv2d(words(2, 5, 5, 9, 2), dense(*FILTERS)), r"8, words\).*\(2, 5, 5, 9, 2\)"),
    (lambda: xnor_conv2d(words(2, 5, 5, 2), dense()), r"\(N, C, kh, kw\).*\(3, 70\)"),
    (lambda: xnor_conv2d(words(2, 5, 5, 2), dense(*FILTERS), 0), "stride.*0 and 0"),
    (lambda: xnor_conv2d(words(2, 5, 5, 2), dense(*FILTERS), 1, -1), "padding.*1 and -1"),
    (lambda: xnor_conv2d(words(2, 5, 2, 2), dense(*FILTERS)), r"\(3, 3\).*\(5, 2\), padded 0"),
    (lambda: xnor_conv2d(words(2, 0, 4, 2), dense(*FILTERS), 1, 1), r"\(0, 4\), padded 1"),
    (
        lambda: xnor_conv2d(words(2, 5, 5, 2), dense(*FILTERS), 1, 0, ints(2)),
        r"int32 \(3,\).*torch.int32 \(2,\)",
    ),
    (
        lambda: xnor_conv2d(words(2, 5, 5, 2, device="meta"), dense(*FILTERS)),
        "x is on meta.*weights on cpu",
    ),
]


@pytest.mark.parametrize("traced", [False, True], ids=["run", "traced"])
@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_does_not_fit_is_refused_naming_both_values(call, message, traced):
    if "not as" in message and r"\[\]" not in message and not dispatch.AVAILABLE:
        pytest.skip("numba is not installed: weights are packed as the reference does it")
    with FakeTensorMode() if traced else nullcontext():
        with pytest.raises(ValueError, match=message):
            call()


def test_errors_show_when_a_network_is_exported():
    with pytest.raises(Exception, match=r"1 words a row for 3 signs.*\(6, 5, 5, 2\)"):
        torch.export.export(Net(), (numbers(6, 65, 5, 5),))


@pytest.mark.parametrize(("planes", "most"), [(False, 2**31 - 1), (True, (2**31 - 1) // 255)])
def test_sums_that_an_int32_does_not_hold_are_refused(planes, most):
    scale = 255 if planes else 1
    with FakeTensorMode():  # nothing is allocated
        x = words(1, *[8] * planes, reference.words_for(most))
        assert xnor_matmul(x, dense(1, most)).shape == (1, 1)
        assert xnor_conv2d(x[None, None], dense(1, most, 1, 1)).shape == (1, 1, 1, 1)
        x = words(1, *[8] * planes, reference.words_for(most + 1))
        with pytest.raises(ValueError, match=f"{scale * (most + 1)}.*{2**31 - 1}"):
            xnor_matmul(x, dense(1, most + 1))
        x = words(1, 9, 9, *[8] * planes, reference.words_for(most // 27 + 1))
        with pytest.raises(ValueError, match=f"{scale * 27 * (most // 27 + 1)}.*{2**31 - 1}"):
            xnor_conv2d(x, dense(1, most // 27 + 1, 3, 9))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, 63, 64, 127, 128, 199])
@pytest.mark.parametrize("negative", [False, True])
def test_a_nan_is_refused_wherever_it_stands_and_infinity_is_not(dtype, place, negative):
    x = torch.full((3, 200), torch.inf, dtype=dtype)
    x[0] = -torch.inf
    assert torch.equal(unpack_signs(pack_signs(x), 200).double(), signs(x)) and pack_weights(x)
    bits = x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.itemsize])
    bits[1, place] += 1  # the NaN next to infinity
    if negative:
        bits[1, place] |= torch.iinfo(bits.dtype).min
    for pack in (pack_signs, pack_weights):
        with pytest.raises(ValueError, match="NaN"):
            pack(x)


def test_a_nan_is_refused_without_numba_too(monkeypatch):
    monkeypatch.setattr(operands, "kernels_of", lambda _: reference)
    assert torch.equal(pack_signs(IMAGES), reference.pack_signs(IMAGES))
    with pytest.raises(ValueError, match="NaN"):
        pack_signs(torch.tensor([1.0, torch.nan]))

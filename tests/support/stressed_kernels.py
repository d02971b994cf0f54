"""Random shapes for every CPU kernel, and its reference: integers are compared by equality."""

from dataclasses import replace
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from guarded import Stress, copied, guarded
from torch import Tensor

from bnnlib import draws, functional, shift_norm, xnor
from bnnlib.binarize import ap2, hard_sigmoid
from bnnlib.functional import InputValues
from bnnlib.kernels import cpu, dispatch, operands, reference
from bnnlib.kernels.cpu import (
    elementwise,
    hamming_search,
    lut_codes,
    lut_matmul,
    lut_tables,
    sign_matmul,
)
from bnnlib.pooling import MaxPool
from bnnlib.xnor import PackedWeights
from study import retrieval
from study.bench import plain_kernels

LEAST, MOST = -(2**31), 2**31 - 1
EDGES = (1, 2, 63, 64, 65, 127, 128, 129, 192, 256, 257)  # of words, tiles, blocks


def size(chance: Random, most: int) -> int:
    edges = [edge for edge in EDGES if edge <= most]
    return chance.choice(edges) if chance.random() < 0.4 else chance.randint(1, most)


def integers(shape: tuple[int, ...], seed: int, low: int = -2, high: int = 3) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def numbers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """With zeros, of floats also -0.0."""
    x = integers(shape, seed).to(dtype)
    x[..., ::2] *= -1
    return x


def words(end: bool, seed: int, shape: tuple[int, ...], planes: bool, dtype: torch.dtype) -> Tensor:
    """Packed by the kernel from guarded numbers into guarded words, as the reference packs them."""
    if planes:
        x, pack = integers(shape, seed, 0, 256).to(torch.uint8), "pack_planes"
    else:
        x, pack = numbers(shape, seed, dtype), "pack_signs"
    packed = getattr(xnor, pack)(copied(x, end))
    assert torch.equal(packed, getattr(reference, pack)(x)), pack
    return packed


def weights(end: bool, seed: int, shape: tuple[int, ...], planes: bool) -> tuple:
    """Packed for the kernel, in guarded memory, and for the reference."""
    w = numbers(shape, seed)
    packed = xnor.pack_weights(copied(w, end), planes)
    tensors = [copied(part, end) for part in packed.tensors]
    return PackedWeights(tensors, packed.shape), reference.pack_weights(w)


def thresholds_for(sums: Tensor) -> Tensor:
    """(..., N) sums -> a row of them, so that some are equal, between always and never."""
    rows = sums.flatten(0, -2)
    thresholds = rows[len(rows) // 2].clone() if len(rows) else sums.new_zeros(sums.shape[-1])
    thresholds[::5], thresholds[1::5] = LEAST, MOST
    return thresholds


def _dense(chance: Random) -> dict:
    return {
        "m": chance.randint(0, 60),
        "n": size(chance, 300),
        "k": size(chance, 600),
        "planes": chance.random() < 0.4,
        "dtype": chance.choice(operands.REAL),
    }


def dense_products(end, seed, m, n, k, planes, dtype) -> None:
    x = words(end, seed, (m, k), planes, dtype)
    packed, plain_weights = weights(end, seed + 1, (n, k), planes)
    sums = reference.xnor_matmul(x, plain_weights, (n, k), None)
    assert torch.equal(xnor.xnor_matmul(x, packed), sums)
    out = guarded((m, n), torch.float32, end)
    cpu.xnor_matmul(x, packed.tensors, (n, k), None, out)
    assert torch.equal(out, sums.float())
    thresholds = copied(thresholds_for(sums), end)
    expected = reference.xnor_matmul(x, plain_weights, (n, k), thresholds)
    assert torch.equal(xnor.xnor_matmul(x, packed, thresholds), expected)


def _convolved(chance: Random) -> dict:
    kernel = chance.choice(((1, 1), (3, 3), (3, 3), (5, 5), (2, 3)))
    padding = chance.randint(0, 2)
    sides = [max(1, taps - 2 * padding) + chance.randint(0, 5) for taps in kernel]
    return {
        "shape": (chance.randint(0, 3), *sides, size(chance, 130)),
        "filters": (size(chance, 200), *kernel),
        "stride": chance.randint(1, 3),
        "padding": padding,
        "planes": chance.random() < 0.3,
    }


def convolutions(end, seed, shape, filters, stride, padding, planes) -> None:
    x = words(end, seed, shape, planes, torch.float32)
    filters = (filters[0], shape[-1], *filters[1:])
    packed, plain_weights = weights(end, seed + 1, filters, planes)
    sums = reference.xnor_conv2d(x, plain_weights, filters, stride, padding, None)
    assert torch.equal(xnor.xnor_conv2d(x, packed, stride, padding), sums)
    out = guarded(tuple(sums.shape), torch.float32, end)
    cpu.xnor_conv2d(x, packed.tensors, filters, stride, padding, None, out)
    assert torch.equal(out, sums.float())
    thresholds = copied(thresholds_for(sums), end)
    expected = reference.xnor_conv2d(x, plain_weights, filters, stride, padding, thresholds)
    assert torch.equal(xnor.xnor_conv2d(x, packed, stride, padding, thresholds), expected)


def _trained(chance: Random) -> dict:
    dense = chance.random() < 0.5
    sides = () if dense else (chance.randint(1, 8), chance.randint(1, 12))
    most = 100 if dense else 40
    wide = chance.random() < 0.05  # a strip's outputs are cut into pieces
    inputs = chance.randint(385, 800) if wide else size(chance, most)
    read = (InputValues.SIGNS, InputValues.DROPPED)
    return {
        "shape": (chance.randint(1, 40 if dense else 4), inputs, *sides),
        "outputs": size(chance, most),
        "values": chance.choice(read) if dense else InputValues.SIGNS,
    }


def products_of_training(end, seed, shape, outputs, values) -> None:
    """Forward and both gradients, of integers: float32 sums of them are exact in any order."""
    x = integers(shape, seed, 0, 2).float() * 2 - 1
    if values is InputValues.DROPPED:
        x = integers(shape, seed, -1, 2).float() * 2
    taps = () if len(shape) == 2 else (3, 3)
    w = functional.empty_latent_weight((outputs, shape[1], *taps))
    w.copy_(numbers(tuple(w.shape), seed + 1))
    own = copied(x, end).requires_grad_(), w.requires_grad_()
    product = functional.linear if not taps else functional.conv2d
    bias = copied(torch.arange(outputs).float(), end)
    sums = product(*own, bias, values)
    theirs = x.double().requires_grad_(), torch.where(w >= 0, 1.0, -1.0).double().requires_grad_()
    multiply = F.linear if not taps else lambda *parts: F.conv2d(*parts, padding=1)
    expected = multiply(*theirs, bias.double())
    assert torch.equal(sums.double(), expected)
    grad = integers(tuple(sums.shape), seed + 2, -9, 10).float()
    given = copied(grad.movedim(1, -1).contiguous(), end).movedim(-1, 1)  # as it is read
    found = torch.autograd.grad(sums, own, given)
    for one, other in zip(found, torch.autograd.grad(expected, theirs, grad.double()), strict=True):
        assert torch.equal(one.double(), other)


def _looked_up(chance: Random) -> dict:
    return {
        "shape": (chance.randint(1, 3), chance.randint(1, 6), chance.randint(1, 20)),
        "channels": size(chance, 70),
        "outputs": chance.randint(385, 800) if chance.random() < 0.1 else size(chance, 70),
        "side": chance.choice((1, 3)),
    }


def look_ups(end, seed, shape, channels, outputs, side) -> None:
    """The kernels behind both gradients, whose addresses are their own: every array is guarded."""
    _shifted_sums(end, seed, shape, channels, outputs, side)
    _gathered_sums(end, seed, shape, channels, outputs, side)


def _shifted_sums(end, seed, shape, channels, outputs, side) -> None:
    images = integers((*shape, channels), seed, -9, 10).float()
    signs = integers((side, side, channels, outputs), seed + 1, 0, 2)
    missing = -outputs % lut_tables.OUTPUTS_PER_STEP
    bits = F.pad(signs, (0, missing, 0, -channels % 4)).unflatten(2, (-1, 4))
    places = torch.tensor([8, 4, 2, 1])[:, None] * lut_tables.CODE_SCALE
    codes = copied((bits * places).sum(3).flatten(0, 2).to(torch.uint8), end).numpy()
    vectors = sign_matmul._vectors(SimpleNamespace(images=shape[0], width=shape[2]), 8).numpy()
    given, out = copied(images, end).numpy(), guarded((*shape, outputs), torch.float32, end)
    pieces = len(vectors) // 2 * lut_matmul.shifted_pieces(outputs, side)
    lut_matmul.shifted(given, vectors, side, codes, out.numpy(), 0, pieces)
    weights = (2 * signs - 1).double().permute(2, 3, 0, 1)
    expected = F.conv_transpose2d(images.double().movedim(-1, 1), weights, padding=side // 2)
    assert torch.equal(out.double().movedim(-1, 1), expected)
    room = ((-(-channels // 4) * 4, 2, 7 + side), (side, codes.shape[1], 16))
    pixels, sums = (guarded(size, torch.float32, end).zero_().numpy() for size in room)
    table = guarded((lut_matmul.TABLES_BYTES + 64,), torch.uint8, end).numpy()
    for y in range(shape[1]):
        lut_matmul.lay_out(given, vectors[-2:], y, pixels)
        lut_matmul.add_row(pixels, codes, y, shape[1], table, sums)


def _gathered_sums(end, seed, shape, channels, outputs, side) -> None:
    signs = integers((*shape, channels), seed, 0, 2) * 2 - 1
    grads = integers((*shape, outputs), seed + 1, -9, 10).float()
    width, taps = -(-shape[2] // 4), side * side
    filled = channels + -channels % lut_tables.OUTPUTS_PER_STEP
    codes = guarded((shape[0] * shape[1] * width, taps, filled), torch.uint8, end)
    given = copied(signs.to(torch.int8), end).numpy()
    lut_codes.sign_codes(given, side, codes.numpy(), 0, len(codes))
    padded = F.pad(grads, (0, -outputs % 16, 0, -shape[2] % 4))
    start = copied(integers((taps, padded.shape[3]), seed + 2, -9, 10).float(), end)
    out = guarded((taps, codes.shape[2], padded.shape[3]), torch.float32, end)
    lut_matmul.gathered(
        copied(padded.flatten(0, 2), end).numpy(),
        codes.flatten(1).numpy(), start.numpy(), 4, out.numpy(), 0, padded.shape[3] // 16,
    )  # fmt: skip
    around = F.pad(signs.double(), (0, 0, *(4 * (side // 2,))), value=-1)
    for t in range(taps):
        y, x = divmod(t, side)
        there = around[:, y : y + shape[1], x : x + shape[2]]
        expected = start[t, :outputs] + torch.einsum("bhwc,bhwn->cn", there, grads.double())
        assert torch.equal(out[t, :channels, :outputs].double(), expected)


def _searched(chance: Random) -> dict:
    codes = size(chance, 700)
    share = chance.choice((0, 0, chance.random(), 1))
    return {
        "queries": chance.randint(0, 60),
        "codes": codes,
        "bits": size(chance, 300),
        "k": max(1, round(share * codes)),
        "flips": chance.random() / 2,
    }


def hamming_searches(end, seed, queries, codes, bits, k, flips) -> None:
    chance = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, bits, generator=chance)

    def near(count: int) -> Tensor:
        own = centres[torch.randint(0, 3, (count,), generator=chance)]
        flipped = torch.rand(own.shape, generator=chance) < flips
        return xnor.pack_signs(torch.where(flipped, -own, own))

    packed = retrieval.index(copied(near(codes), end), bits)
    names = ("words", "places", "tiles", "middles", "radii")
    packed = replace(packed, **{name: copied(getattr(packed, name), end) for name in names})
    asked = copied(near(queries), end)
    found = retrieval.search(asked, packed, k)
    for one, other in zip(found, hamming_search.reference(asked, packed, k), strict=True):
        assert torch.equal(one, other)


def _in_a_line(chance: Random) -> dict:
    return {"count": chance.choice((size(chance, 257), chance.randint(1, 3000)))}


def elementwise_kernels(end, seed, count) -> None:
    """Guarded and in ordinary memory alike; test_dispatch.py compares them with torch's."""
    lines = [numbers((count,), seed + i).mul_(0.37).numpy() for i in range(4)]
    lines[3] = np.abs(lines[3])
    bits = lines[3].view(np.int32)
    calls = (
        (elementwise.sign, lines[:1], [np.empty_like(lines[0])], ()),
        (elementwise.passes, lines[:1], [np.empty(count, np.bool_)], ()),
        (elementwise.cancel, lines[:2], [np.empty_like(lines[0])], ()),
        (elementwise.adam, lines, [], (0.01, 0.999, 0.1, 0.001, 1e-8, 1.0)),
        (elementwise.adamax_coded, [*lines, bits], [], (0.01, 0.999, 0.1, 1e-8, 1.0)),
        (elementwise.adamax_printed, lines, [], (0.01, 0.999, 0.1, 1.0)),
        (elementwise.adamax_decaying, lines, [], (0.01, 0.999, 0.1, 1e-8, 1.0)),
    )
    for kernel, given, room, constants in calls:
        plainly = [array.copy() for array in (*given, *room)]
        apart = [copied(torch.from_numpy(array), end).numpy() for array in plainly]
        if kernel is elementwise.adamax_coded:
            plainly[4], apart[4] = (arrays[3].view(np.int32) for arrays in (plainly, apart))
        for arrays in (plainly, apart):
            dispatch.run(kernel, arrays, *constants)
        assert all(map(np.array_equal, plainly, apart)), kernel.__name__


def _drawn(chance: Random) -> dict:
    images = chance.random() < 0.5
    sides = (chance.randint(1, 9), chance.randint(1, 9)) if images else ()
    return {"shape": (chance.randint(1, 6), size(chance, 300), *sides)}


def draws_and_dropout(end, seed, shape) -> None:
    """Several pieces and states; test_draws.py compares the kernels with torch's draws."""
    x = numbers(shape, seed).mul_(0.37)
    noises = [torch.Generator().manual_seed(seed) for _ in range(2)]
    place = copied(x.movedim(1, -1).contiguous(), end).movedim(-1, 1)
    small = patch.object(dispatch, "ELEMENTS_PER_PIECE", 64)
    with patch.object(draws, "WORDS_PER_PIECE", 700), small:
        drawn = draws.signs(place, noises[0])
        expected = (torch.rand(shape, generator=noises[1]) < hard_sigmoid(x)) * 2.0 - 1
        assert torch.equal(drawn, expected)
        dropped = copied(x, end).requires_grad_()
        kept = draws.Drop.apply(dropped, 0.25, noises[0])
        kept.backward(copied(x, end))
    keeps = torch.rand(shape, generator=noises[1]) >= 0.25
    assert torch.equal(kept, x * keeps / 0.75)
    assert torch.equal(dropped.grad, x / 0.75 * keeps)
    assert torch.equal(*(noise.get_state() for noise in noises))


def shift_norms(end, seed, shape) -> None:
    """Each pass between the sums, beside torch's; the last one, beside `_gradient_in_doubles`."""
    x, grad = (numbers(shape, seed + i).mul_(0.37) for i in range(2))
    x, grad = (copied(t.movedim(1, -1).contiguous(), end).movedim(-1, 1) for t in (x, grad))
    channels = [copied(numbers((shape[1],), seed + i).mul_(0.3), end) for i in range(4)]
    mean, factor, shift, slope = channels
    found = []
    for takes in (shift_norm._fits, lambda *_: False):
        small = patch.object(dispatch, "ELEMENTS_PER_PIECE", 64)
        with patch.object(shift_norm, "_fits", takes), small:
            found.append(
                (
                    shift_norm.spread(x, mean),
                    shift_norm.affine(x, mean, factor, shift, torch.empty_like(x)),
                    shift_norm.along(x, grad, mean),
                )
            )
    assert all(map(torch.equal, *found))
    with patch.object(dispatch, "ELEMENTS_PER_PIECE", 64):
        last = shift_norm.gradient(x, grad, mean, slope, factor, shift, torch.empty_like(x))
    assert torch.equal(last, _gradient_in_doubles(x, grad, mean, slope, factor, shift))


def _gradient_in_doubles(x, grad, mean, slope, factor, shift) -> Tensor:
    """`shift_norm.gradient` with a product that is rounded once, together with its sum.

    So does torch where the processor has an instruction for it; elsewhere torch rounds both.
    """
    channels = mean, slope, factor, shift
    mean, slope, factor, shift = (shift_norm.per_channel(t, x) for t in channels)
    rounded = ap2(x - mean) * slope
    return (rounded.double() + grad.double() * factor.double()).float() - shift


def _yardsticks(chance: Random) -> dict:
    return {"m": size(chance, 40), "n": size(chance, 40), "k": size(chance, 200)}


def yardsticks(end, seed, m, n, k) -> None:
    a, b = (numbers((rows, k), seed + i) for i, rows in enumerate((m, n)))
    floats = plain_kernels.multiply_float(copied(a, end).numpy(), copied(b, end).numpy())
    assert np.array_equal(floats, (a.double() @ b.double().t()).numpy())
    left, right = (reference.pack_signs(x) for x in (a, b))
    found = plain_kernels.multiply_words(copied(left, end).numpy(), copied(right, end).numpy(), k)
    expected = reference.xnor_matmul(left, [right], (n, k), None)
    assert np.array_equal(found, expected.numpy())


def _pooled(chance: Random) -> dict:
    sides = 2 * chance.randint(1, 6), 2 * chance.randint(1, 6)
    return {"shape": (chance.randint(1, 4), *sides, size(chance, 70))}


def poolings(end, seed, shape) -> None:
    """Of integers, so that many are equal: the gradient goes to the same one of them as torch's."""
    images = integers(shape, seed, -2, 3).float()
    grad = integers((shape[0], shape[1] // 2, shape[2] // 2, shape[3]), seed + 1, -9, 10).float()
    found = []
    for pool, place in ((MaxPool.apply, end), (lambda x: F.max_pool2d(x, 2), None)):
        x, g = (one if place is None else copied(one, place) for one in (images, grad))
        x = x.movedim(-1, 1).requires_grad_()
        out = pool(x)
        if place is not None:
            assert out.grad_fn.saved_tensors[0].dtype == torch.uint8  # it was our kernel
        found.append((out, *torch.autograd.grad(out, x, g.movedim(-1, 1))))
    assert all(map(torch.equal, *found))


STRESSED = {
    "products of packed rows": Stress(_dense, dense_products),
    "convolutions of packed images": Stress(_convolved, convolutions),
    "Hamming searches": Stress(_searched, hamming_searches),
    "one-pass updates": Stress(_in_a_line, elementwise_kernels),
    "draws": Stress(_drawn, draws_and_dropout),
    "shift-based normalization": Stress(_drawn, shift_norms),
    "look-ups for the gradients": Stress(_looked_up, look_ups),
    "max pooling": Stress(_pooled, poolings),
    "plain yardsticks": Stress(_yardsticks, yardsticks),
    "products of training and their gradients": Stress(_trained, products_of_training),
}

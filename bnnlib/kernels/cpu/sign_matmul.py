"""A binary layer's product with its input, on bits, and both gradients, by look-up. CPU only.

The input (B, C) or (B, C, H, W) holds signs, or (B, C) {-2, 0, 2} behind a dropout of one half, or
signs while that is off; weights (out, in) or (out, in, 3, 3) count by their signs, and are read
fastest where their memory is (taps, in, out). Sums of the forward pass are exact: of signs those of
the packed kernels, behind a dropout int16 ones by look-up. `bnnlib.functional` makes a
differentiable function of it.
"""

import threading

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.kernels import cpu
from bnnlib.kernels.cpu import gradient_memory, lut_codes, lut_matmul, lut_tables, round_up
from bnnlib.kernels.cpu.lut_tables import OUTPUTS_PER_STEP
from bnnlib.kernels.cpu.parallel_for import in_parts

LANES = {torch.int16: 16, torch.float32: 8}  # of a vector
COLUMNS_PER_TILE = 2 * LANES[torch.float32]  # of a weight's gradient: they are summed together


def product(x: Tensor, weight: Tensor, dropped: bool) -> Tensor:
    """x sign(weight)^T, or the 3x3 convolution with zero padding 1: (B, out, ...) float32.

    Raises ValueError for a NaN, which has no sign.
    """
    if not (dropped and _is_even(x)):
        return _on_bits(x, weight)
    if _holds_nan(x) or _holds_nan(weight):
        raise ValueError("a NaN has no sign")
    return _shifted(x, _Grid(x), _column_codes(weight), weight.shape[0], torch.int16)


def _is_even(x: Tensor) -> bool:
    """Whether x (B, C) holds {-2, 0, 2} and no signs, which its first number tells: a dropout that
    is on leaves no sign as it was, and one that is off leaves all.
    """
    return x.numel() > 0 and bool(x[0, 0].abs() != 1)


def _holds_nan(x: Tensor) -> bool:
    """Whether there is a NaN: the smallest is one then. Six times faster than a mask of all."""
    return x.numel() > 0 and bool(x.amin().isnan())


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of x (B, in, ...) float32 from that of the sums, (B, out, ...)."""
    grid = _Grid(grad)
    return _shifted(grad, grid, _row_codes(weight, grid.taps), weight.shape[1], torch.float32)


class _Grid:
    """x (B, C, H, W) as images with nine taps, or (B, C) as one row of positions with one tap."""

    def __init__(self, x: Tensor):
        self.border = int(x.dim() == 4)
        self.images, self.height = (len(x), x.shape[2]) if self.border else (1, 1)
        self.width = x.shape[-1] if self.border else len(x)
        self.side = 1 + 2 * self.border
        self.taps = self.side**2

    def images_of(self, x: Tensor) -> Tensor:
        """x (B, C, ...) -> (images, height, width, C), without gaps: a view where C comes last."""
        return _channels_last(x).contiguous().view(self.images, self.height, self.width, -1)


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view; (B, C) as it is."""
    return x.movedim(1, -1)


def _positions(x: Tensor) -> Tensor:
    """(B, C, ...) -> (positions, C), a view where channels come last in memory."""
    return _channels_last(x).flatten(0, -2)


def _on_bits(x: Tensor, weight: Tensor) -> Tensor:
    """The forward product of signs x (B, C, ...) -> (B, out, ...) float32."""
    words = cpu.pack_signs(_channels_last(x))
    tiles = cpu.pack_weights(weight)
    if x.dim() == 2:
        out = torch.empty(len(x), len(weight), dtype=torch.float32)
        cpu.xnor_matmul(words, tiles, weight.shape, None, out)
        return out
    shape = len(x), len(weight), *x.shape[2:]
    out = torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)
    cpu.xnor_conv2d(words, tiles, weight.shape, 1, 1, None, _channels_last(out))
    return out


def _column_codes(weight: Tensor) -> Tensor:
    """(out, in) -> codes for the forward product, (groups of inputs, out)."""
    memory = weight.detach().t().contiguous()
    codes = _odd_lines(round_up(len(memory), 4) // 4, memory.shape[1])
    arrays = memory.numpy(), codes.numpy()
    in_parts(lambda *part: lut_codes.column_codes(*arrays, *part), len(codes))
    return codes


def _row_codes(weight: Tensor, taps: int) -> Tensor:
    """(out, in, ...) -> codes for the input's gradient, (taps * groups of outputs, in)."""
    outputs, inputs = weight.shape[:2]
    memory = weight.detach().movedim(1, 0).movedim(1, -1)  # (in, ..., out)
    memory = memory.movedim(0, -2).reshape(taps, inputs, outputs).contiguous()
    codes = _odd_lines(taps * (round_up(outputs, 4) // 4), inputs)
    arrays = memory.numpy(), codes.numpy()
    blocks = -(-inputs // lut_codes.ROWS_PER_BLOCK)
    in_parts(lambda *part: lut_codes.row_codes(*arrays, *part), blocks)
    return codes


def _odd_lines(rows: int, columns: int) -> Tensor:
    """Scratch memory (rows, columns up to whole steps of outputs) uint8; zeros beyond the columns.

    Rows lie an odd number of cache lines apart: a column's codes don't collide in the caches.
    """
    pitch = 64 * (round_up(columns, 64) // 64 | 1)
    codes = _scratch(rows * pitch).view(rows, pitch)[:, : round_up(columns, OUTPUTS_PER_STEP)]
    codes[:, columns:] = 0
    return codes


_per_thread = threading.local()


def _scratch(size: int) -> Tensor:
    """`size` bytes, filled with anything: a thread's own, until its next call."""
    if len(getattr(_per_thread, "scratch", ())) < size:
        _per_thread.scratch = torch.empty(size, dtype=torch.uint8)
    return _per_thread.scratch[:size]


def _shifted(x: Tensor, grid: _Grid, codes: Tensor, outputs: int, dtype) -> Tensor:
    """x (B, R, ...) as `dtype`, codes (steps, outputs) -> (B, outputs, ...) float32.

    Each tap reads opposite to where it is, as the gradient of a convolution's input does.
    """
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    shape = len(x), outputs, *x.shape[2:]
    out = torch.empty(shape, dtype=torch.float32, memory_format=layout)
    vectors = _vectors(grid, LANES[dtype])
    images = grid.images_of(x.to(dtype))
    sums = grid.images_of(out)
    arrays = images.numpy(), vectors.numpy(), grid.side, codes.numpy(), sums.numpy()
    strips = len(vectors) // lut_tables.VECTORS_PER_ENTRY
    count = strips * lut_matmul.shifted_pieces(outputs, grid.side)
    in_parts(lambda *part: lut_matmul.shifted(*arrays, *part), count)
    return out


def _vectors(grid: _Grid, lanes: int) -> Tensor:
    """Places of vectors' lanes for `lut_matmul.shifted`: (even number, 3). The last may be idle."""
    first = torch.arange(0, grid.width, lanes)
    places = torch.cartesian_prod(torch.arange(grid.images), first)
    counts = (grid.width - places[:, 1]).clamp(max=lanes)
    vectors = torch.cat([places, counts[:, None]], 1)
    padding = torch.zeros(-len(vectors) % lut_tables.VECTORS_PER_ENTRY, 3, dtype=torch.int64)
    return torch.cat([vectors, padding])


def weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, dropped: bool) -> Tensor:
    """The gradient of the weight's signs (out, in, ...): from x (B, in, ...) int8 and the sums'.

    Its memory is (taps, in, out); weight: the one whose gradient it is, for its memory alone.
    """
    grid = _Grid(x)
    dropped = dropped and _is_even(x)
    group = 3 if dropped else 4
    grads = _in_groups(2 * grad if dropped else grad, grid, group)
    codes = _trit_codes(x) if dropped else _sign_codes(x, grid)
    start = grads.new_zeros(grid.taps, grads.shape[1])
    if grid.border:
        start[:, : grad.shape[1]] = _off_the_image(_channels_last(grad))
    memory = gradient_memory.memory_of(weight, gradient_shape(weight))
    out = torch.from_numpy(memory)
    arrays = grads.numpy(), codes.numpy(), start.numpy(), group, memory
    tiles = grads.shape[1] // COLUMNS_PER_TILE
    multiple = lut_matmul.TILES_PER_WRITE if tiles >= 8 * lut_matmul.TILES_PER_WRITE else 1
    in_parts(lambda *part: lut_matmul.gathered(*arrays, *part), tiles, multiple)
    return in_shape_of(weight, out)


def gradient_shape(weight: Tensor) -> tuple[int, int, int]:
    """The memory that a weight's gradient takes: (taps, in, out), the latter two filled up."""
    outputs, inputs = weight.shape[:2]
    filled = round_up(inputs, OUTPUTS_PER_STEP), round_up(outputs, COLUMNS_PER_TILE)
    return weight[0, 0].numel(), *filled


def in_shape_of(weight: Tensor, memory: Tensor) -> Tensor:
    """A gradient's memory -> the gradient, (out, in, ...), a view."""
    out = memory[:, : weight.shape[1], : weight.shape[0]]
    return out.unflatten(0, (3, 3)).permute(3, 2, 0, 1) if weight.dim() == 4 else out[0].t()


def _in_groups(grad: Tensor, grid: _Grid, group: int) -> Tensor:
    """grad (B, N, ...) -> (positions, N), without gaps.

    Zeros fill up N to whole tiles, and each row of an image to whole groups.
    """
    rows = _positions(grad).unflatten(0, (-1, grid.width))
    missing = -grad.shape[1] % COLUMNS_PER_TILE, -grid.width % group
    if any(missing):
        rows = F.pad(rows, (0, missing[0], 0, missing[1]))
    return rows.flatten(0, 1).contiguous()


def _sign_codes(x: Tensor, grid: _Grid) -> Tensor:
    """x in {-1, +1} (B, C, ...) int8 -> codes (groups of 4 positions, taps * whole steps of C)."""
    groups = grid.images * grid.height * (round_up(grid.width, 4) // 4)
    codes = _odd_lines(groups, grid.taps * round_up(x.shape[1], OUTPUTS_PER_STEP))
    arrays = grid.images_of(x).numpy(), grid.side, codes.unflatten(1, (grid.taps, -1)).numpy()
    in_parts(lambda *part: lut_codes.sign_codes(*arrays, *part), groups)
    return codes


def _trit_codes(x: Tensor) -> Tensor:
    """x in {-2, 0, +2} (B, C) -> codes (ceil(B / 3), C) uint8 of three rows each."""
    trits = torch.ones(round_up(len(x), 3), x.shape[1], dtype=torch.uint8)
    trits[: len(x)] = (x / 2 + 1).to(torch.uint8)
    codes = _odd_lines(len(trits) // 3, x.shape[1])
    first, second, third = trits.unflatten(0, (-1, 3)).unbind(1)
    codes[:, : x.shape[1]] = (9 * first + 3 * second + third) * lut_tables.CODE_SCALE
    return codes


def _off_the_image(grads: Tensor) -> Tensor:
    """grads (B, H, W, N) -> (9, N): their sum over the pixels from which a tap leaves the image.

    There the input is 0, but its code says -1: `gathered` will subtract this much too much.
    """
    ends = torch.stack([grads[:, 0], grads[:, -1]], 1).sum(0)  # (2, W, N): the first and last row
    sides = torch.stack([grads[:, :, 0], grads[:, :, -1]], 2).sum((0, 1))
    off = grads.new_zeros(3, 3, grads.shape[3])
    off[::2] += ends.sum(1)[:, None]
    off[:, ::2] += sides
    off[::2, ::2] -= ends[:, [0, -1]]
    return off.flatten(0, 1)

"""A binary layer's product with its input, on bits, and both gradients, by look-up. CPU only.

The input (B, C) or (B, C, H, W) holds signs, or (B, C) {-2, 0, 2} behind a dropout of one half;
weights (out, in) or (out, in, 3, 3) count by their signs. Sums of the forward pass are exact: of
signs those of the packed kernels, behind a dropout int16 ones by look-up.
"""

import math
import threading

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.kernels import cpu, lookup, pack
from bnnlib.kernels.cpu import up
from bnnlib.kernels.threads import in_parts

LANES = {torch.int16: 16, torch.float32: 8}  # of a vector
TILE = 2 * LANES[torch.float32]  # columns of a weight's gradient that are summed together


class SignProduct(torch.autograd.Function):
    """x sign(weight)^T, or the 3x3 convolution with zero padding 1; (B, out, ...), no bias.

    The gradient of the weight is that of its signs, unchanged.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dropped: bool) -> Tensor:
        ctx.dropped, ctx.grid, ctx.weight = dropped, _Grid(x), weight
        ctx.save_for_backward(x.to(torch.int8))  # a quarter of the memory until the backward pass
        if not dropped:
            return _on_bits(x, weight)
        return _shifted(x, ctx.grid, 1, _column_codes(weight), weight.shape[0], torch.int16)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x,), grid = ctx.saved_tensors, ctx.grid
        codes = _row_codes(ctx.weight, grid.taps)
        grad_x = _shifted(grad, grid, -1, codes, x.shape[1], torch.float32)
        return grad_x, _gathered(x, grad, grid, ctx.dropped, ctx.weight), None


class _Grid:
    """How images lie in rows of positions, for x (B, C, H, W), or (B, C): one row for the batch.

    Rows of images have a zero before and after, and a row of zeros lies above and below each image,
    so that a tap never reaches into a neighbour.
    """

    def __init__(self, x: Tensor):
        self.border = int(x.dim() == 4)
        self.images, self.height = (len(x), x.shape[2]) if self.border else (1, 1)
        self.width = x.shape[-1] if self.border else len(x)
        self.taps = (1 + 2 * self.border) ** 2
        self.rows = self.images * (self.height + self.border) + self.border

    def places(self, row: int, every: int) -> Tensor:
        """Where every so-manieth position of each image's row lies, if the next row of positions is
        `row` further: (images * height, ceil(width / every))."""
        rows = (torch.arange(self.rows - self.border) + self.border).view(self.images, -1)
        columns = torch.arange(0, self.width, every) + self.border
        return rows[:, : self.height].reshape(-1, 1) * row + columns

    def shifts(self, row: int) -> Tensor:
        """How far each tap is from the position that it is for: (taps,)."""
        reach = torch.arange(-self.border, self.border + 1)
        return (reach[:, None] * row + reach).flatten()

    def pixels(self, rows: Tensor) -> Tensor:
        """(rows, width + border, C) -> the images in it, a view (images, height, width, C)."""
        rows = rows[self.border :, self.border :]
        return rows.unflatten(0, (self.images, -1))[:, : self.height]


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view; (B, C) as it is."""
    return x.movedim(1, -1)


def _positions(x: Tensor) -> Tensor:
    """(B, C, ...) -> (positions, C), a view where channels come last in memory."""
    return _channels_last(x).flatten(0, -2)


def _on_bits(x: Tensor, weight: Tensor) -> Tensor:
    """The forward product of signs x (B, C, ...) -> (B, out, ...) float32."""
    words, tiles = cpu.pack_signs(_channels_last(x)), cpu.pack_weights(weight)
    if x.dim() == 2:
        out = torch.empty(len(x), len(weight))
        cpu.xnor_matmul(words, tiles, weight.shape, None, out)
        return out
    shape = len(x), len(weight), *x.shape[2:]
    out = torch.empty(shape, memory_format=torch.channels_last)
    cpu.xnor_conv2d(words, tiles, weight.shape, 1, 1, None, _channels_last(out))
    return out


def _column_codes(weight: Tensor) -> Tensor:
    """(out, in) -> codes for the forward product, (groups of inputs, out)."""
    memory = weight.detach().t()
    codes = _odd_lines(up(len(memory), 4) // 4, memory.shape[1])
    arrays = memory.numpy(), codes.numpy()
    in_parts(lambda *part: pack.column_codes(*arrays, *part), len(codes))
    return codes


def _row_codes(weight: Tensor, taps: int) -> Tensor:
    """(out, in, ...) -> codes for the input's gradient, (taps * groups of outputs, in)."""
    outputs, inputs = weight.shape[:2]
    memory = weight.detach().movedim(1, 0).movedim(1, -1)  # (in, ..., out)
    memory = memory.movedim(0, -2).reshape(taps, inputs, outputs)
    codes = _odd_lines(taps * (up(outputs, 4) // 4), inputs)
    arrays, pieces = (memory.numpy(), codes.numpy()), -(-inputs // pack.BLOCK)
    in_parts(lambda *part: pack.row_codes(*arrays, *part), pieces)
    return codes


def _odd_lines(rows: int, columns: int) -> Tensor:
    """Scratch (rows, columns up to a multiple of 4) uint8, rows an odd number of cache lines apart,
    so that a column's codes don't collide in the caches; zeros beyond the columns."""
    lines = up(columns, 64) // 64 | 1
    codes = _scratch("codes", (rows, 64 * lines), torch.uint8)[:, : up(columns, 4)]
    codes[:, columns:] = 0
    return codes


def _shifted(x: Tensor, grid: _Grid, sign: int, codes: Tensor, outputs: int, dtype) -> Tensor:
    """x (B, R, ...) as `dtype`, codes (steps, outputs) -> (B, outputs, ...) float32.

    sign: +1 to read each tap where it is, -1 opposite to it.
    """
    planes = _planes(x, grid, dtype)
    row = planes[0].numel()
    vectors = _vectors(grid, row, LANES[dtype])
    layout = torch.channels_last if grid.border else torch.contiguous_format
    out = torch.empty(len(x), outputs, *x.shape[2:], memory_format=layout)
    arrays = planes.flatten(0, 1).numpy(), vectors.numpy(), (sign * grid.shifts(row)).numpy()
    arrays = *arrays, codes.numpy(), _positions(out).numpy()
    pieces = len(vectors) // 2 * lookup.shifted_pieces(outputs)
    in_parts(lambda first, last: lookup.shifted(*arrays, first, last), pieces)
    return out


def _vectors(grid: _Grid, row: int, lanes: int) -> Tensor:
    """What `lookup.shifted` takes at a time: (even number, 3), see there; the last may be idle."""
    columns = torch.arange(0, grid.width, lanes)
    starts = grid.places(row, lanes)
    places = torch.arange(len(starts))[:, None] * grid.width + columns
    counts = (grid.width - columns).clamp(max=lanes).expand_as(starts)
    vectors = torch.stack([starts, places, counts], 2).flatten(0, 1)
    idle = vectors[: len(vectors) % 2] * torch.tensor([1, 1, 0])  # where every tap may read
    return torch.cat([vectors, idle])


def _planes(x: Tensor, grid: _Grid, dtype: torch.dtype) -> Tensor:
    """x (B, C, ...) -> (rows, C in fours, pitch): a row's positions in a line for each channel."""
    channels, border = x.shape[1], grid.border
    pitch = up(grid.width, LANES[dtype]) + 2 * border
    planes = _scratch("planes", (grid.rows, up(channels, 4), pitch), dtype)
    source, target = _channels_last(x).contiguous().numpy(), planes.numpy()
    if border:
        in_parts(lambda *part: pack.image_planes(source, target, *part), grid.images)
    else:
        planes[:, channels:] = 0
        pieces = -(-channels // pack.LINES)
        in_parts(lambda *part: pack.row_planes(source, target[0], *part), pieces)
    return planes


def _gathered(x: Tensor, grad: Tensor, grid: _Grid, dropped: bool, weight: Tensor) -> Tensor:
    """The gradient of the weight's signs (out, in, ...) from the inputs and that of the sums."""
    channels, outputs, group = x.shape[1], grad.shape[1], 3 if dropped else 4
    tiles = _tiles(2 * grad if dropped else grad, grid, group)
    codes = _trit_codes(x) if dropped else _sign_codes(x, grid)
    start = torch.zeros(grid.taps, len(tiles) * TILE)
    if grid.border:
        start[:, :outputs] = _off_the_image(_channels_last(grad))
    out = _memory(weight, (grid.taps, up(channels, 4), start.shape[1]))
    arrays = tiles.numpy(), codes.numpy(), start.numpy(), group, out.numpy()
    together = lookup.TILES_TOGETHER if len(tiles) >= 8 * lookup.TILES_TOGETHER else 1
    in_parts(lambda *part: lookup.gathered(*arrays, *part), len(tiles), together)
    out = out[:, :channels, :outputs]
    return out.unflatten(0, (3, 3)).permute(3, 2, 0, 1) if grid.border else out[0].t()


def _tiles(grad: Tensor, grid: _Grid, group: int) -> Tensor:
    """grad (B, N, ...) -> (tiles of N, positions, 16): a tile's numbers in a line of memory.

    Zeros fill up the last tile, and each row of an image to whole groups.
    """
    rows = _positions(grad).unflatten(0, (-1, grid.width))
    missing = -grad.shape[1] % TILE, -grid.width % group
    if any(missing):
        rows = F.pad(rows, (0, missing[0], 0, missing[1]))
    rows = rows.flatten(0, 1)
    tiles = _scratch("planes", (rows.shape[1] // TILE, len(rows), TILE), torch.float32)
    tiles.transpose(0, 1).copy_(rows.unflatten(1, (-1, TILE)))
    return tiles


_own = threading.local()


def _scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for one call, filled with anything: the thread's last of that name, if it's enough."""
    held, size = getattr(_own, name, None), math.prod(shape) * dtype.itemsize
    if held is None or held.numel() < size:
        held = torch.empty(size, dtype=torch.uint8)
        setattr(_own, name, held)
    return held[:size].view(dtype).view(shape)


def _memory(weight: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Room for a gradient: that of the step before, if the optimizer left it, else fresh memory.

    Fresh memory of this size comes page by page from the system, which takes as long as filling it.
    """
    spare = weight.__dict__.pop("spare_gradient", None)
    if spare is None or spare.stride() != weight.stride() or spare.numel() != math.prod(shape):
        return torch.empty(shape)
    return spare.as_strided(shape, (shape[1] * shape[2], shape[2], 1))


def _sign_codes(x: Tensor, grid: _Grid) -> Tensor:
    """x in {-1, +1} (B, C, ...) -> codes (groups, taps * C in fours) of four positions in a row."""
    pitch, channels = grid.width + grid.border, x.shape[1]
    bits = torch.zeros(grid.rows * pitch + 4, up(channels, 4), dtype=torch.uint8)
    line = bits[: grid.rows * pitch, :channels].unflatten(0, (grid.rows, pitch))
    images = _positions(x).unflatten(0, (grid.images, grid.height, grid.width))
    torch.ge(images, 0, out=grid.pixels(line).view(torch.bool))
    starts = grid.places(pitch, 4).flatten()
    codes = _odd_lines(len(starts), grid.taps * bits.shape[1])
    parts = codes.unflatten(1, (grid.taps, -1))
    arrays = bits.numpy(), grid.shifts(pitch).numpy(), starts.numpy(), parts.numpy()
    in_parts(lambda first, last: pack.sign_codes(*arrays, first, last), len(starts))
    return codes


def _trit_codes(x: Tensor) -> Tensor:
    """x in {-2, 0, +2} (B, C) -> codes (ceil(B / 3), C) uint8 of three rows each."""
    trits = torch.ones(up(len(x), 3), x.shape[1], dtype=torch.uint8)
    trits[: len(x)] = (x / 2 + 1).to(torch.uint8)
    codes = _odd_lines(len(trits) // 3, x.shape[1])
    first, second, third = trits.unflatten(0, (-1, 3)).unbind(1)
    codes[:, : x.shape[1]] = (9 * first + 3 * second + third) * lookup.SCALE
    return codes


def _off_the_image(grads: Tensor) -> Tensor:
    """grads (B, H, W, N) -> (9, N): their sum over the pixels from which a tap leaves the image.

    There the input is 0, but its code says -1: this is what `gathered` will subtract too much.
    """
    ends = grads[:, [0, -1]].sum(0)  # (2, W, N): the first row and the last
    off = torch.zeros(3, 3, grads.shape[3])
    off[::2] += ends.sum(1)[:, None]
    off[:, ::2] += grads[:, :, [0, -1]].sum((0, 1))
    off[::2, ::2] -= ends[:, [0, -1]]
    return off.flatten(0, 1)

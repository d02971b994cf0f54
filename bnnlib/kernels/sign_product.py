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
from bnnlib.kernels.threads import in_parts

LANES = {torch.int16: 64, torch.float32: 32}  # of a tile


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
        codes = _column_codes(weight)
        return _shifted(x, ctx.grid, ctx.grid.shifts, codes, weight.shape[0], torch.int16)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x,), grid = ctx.saved_tensors, ctx.grid
        codes = _row_codes(ctx.weight, grid)
        grad_x = _shifted(grad, grid, -grid.shifts, codes.t(), x.shape[1], torch.float32)
        return grad_x, _gathered(x, grad, grid, ctx.dropped, ctx.weight), None


class _Grid:
    """How images lie in a line of positions, for x (B, C, H, W), or (B, C) with one position each.

    A zero column follows each row and a zero row each image, so that a tap's shift never reaches
    into a neighbour; before and after the line there is a margin of zeros.
    """

    def __init__(self, x: Tensor):
        self.spatial = x.dim() == 4
        self.images = len(x)
        self.height, self.width = x.shape[2:] if self.spatial else (1, 1)
        border = 1 if self.spatial else 0
        row = self.width + border
        self.positions = self.images * (self.height + border) * row
        self.margin = border * (row + 1)
        reach = range(-border, border + 1)
        self.shifts = torch.tensor([dy * row + dx for dy in reach for dx in reach])

    def pixels(self, line: Tensor) -> Tensor:
        """(positions, C) -> the images in it, a view (B, H, W, C) without the zeros, or (B, C)."""
        if not self.spatial:
            return line
        grid = line.unflatten(0, (-1, self.height + 1, self.width + 1))
        return grid[:, :-1, :-1]


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view; (B, C) as it is."""
    return x.movedim(1, -1)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


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
    codes = _odd_lines(_up(len(memory), 4) // 4, memory.shape[1])
    arrays = memory.numpy(), codes.numpy()
    in_parts(lambda *part: pack.column_codes(*arrays, *part), _up(len(memory), 4) // 4)
    return codes


def _row_codes(weight: Tensor, grid: _Grid) -> Tensor:
    """(out, in, ...) -> codes for the input's gradient, (in, steps)."""
    taps, (outputs, inputs) = len(grid.shifts), weight.shape[:2]
    memory = weight.detach().movedim(1, 0).movedim(1, -1)  # (in, ..., out)
    memory = memory.movedim(0, -2).reshape(taps, inputs, outputs)
    groups, lanes = _up(outputs, 4) // 4, LANES[torch.float32]
    block = groups  # without taps the order of steps is that of the groups, whatever the blocks
    if taps > 1:
        block = lookup.block_of_groups(groups, taps, lanes, 2 * grid.margin, 4)[0]
    codes = _odd_lines(inputs, taps * groups)
    arrays = memory.numpy(), codes.numpy(), block
    in_parts(lambda *part: pack.row_codes(*arrays, *part), inputs)
    return codes


def _odd_lines(rows: int, columns: int) -> Tensor:
    """Zeros (even rows, even columns) uint8 whose rows are an odd number of cache lines apart, so
    that a column's codes don't collide in the caches."""
    lines = _up(columns + 1, 64) // 64 | 1
    return torch.zeros(_up(rows, 2), 64 * lines, dtype=torch.uint8)[:, : _up(columns, 2)]


def _shifted(x: Tensor, grid: _Grid, shifts: Tensor, codes: Tensor, outputs: int, dtype) -> Tensor:
    """x (B, R, ...) as `dtype`, codes (steps, outputs) -> (B, outputs, ...) float32."""
    lanes = LANES[dtype]
    columns = _up(grid.positions, lanes)
    planes = _planes(x, grid, columns + 2 * grid.margin + lanes, dtype)
    sums = _scratch("sums", (_up(outputs, 2), columns), dtype)
    arrays = planes.numpy(), grid.margin, shifts.numpy(), codes.numpy()
    arrays = *arrays, *codes.stride(), sums.numpy()
    pieces = columns // lanes * lookup.shifted_pieces(len(sums))
    in_parts(lambda first, last: lookup.shifted(*arrays, first, last), pieces)
    return _images(sums, grid, outputs)


def _planes(x: Tensor, grid: _Grid, columns: int, dtype: torch.dtype) -> Tensor:
    """x (B, C, ...) -> (C, columns) or a few planes more: its positions in a line, zeros around."""
    channels, end = x.shape[1], grid.margin + grid.positions
    planes = _scratch("planes", (_up(channels, 4), columns), dtype)
    planes[channels:] = planes[:, : grid.margin] = planes[:, end:] = 0
    source, target = _channels_last(x).contiguous().numpy(), planes.numpy()
    if grid.spatial:
        in_parts(lambda *part: pack.image_planes(source, target, grid.margin, *part), grid.images)
    else:
        in_parts(lambda *part: pack.row_planes(source, target, *part), -(-channels // pack.LINES))
    return planes


def _images(planes: Tensor, grid: _Grid, channels: int) -> Tensor:
    """Planes as of `_planes`, without a margin -> (B, channels, ...) float32."""
    if grid.spatial:
        shape = grid.images, channels, grid.height, grid.width
        images = torch.empty(shape, memory_format=torch.channels_last)
        arrays = planes.numpy(), _channels_last(images).numpy()
        in_parts(lambda *part: pack.plane_images(*arrays, *part), grid.images)
    else:
        images = torch.empty(grid.images, channels)
        arrays = planes.numpy(), images.numpy()
        in_parts(lambda *part: pack.plane_rows(*arrays, *part), -(-channels // pack.LINES))
    return images


def _gathered(x: Tensor, grad: Tensor, grid: _Grid, dropped: bool, weight: Tensor) -> Tensor:
    """The gradient of the weight's signs (out, in, ...) from the inputs and that of the sums."""
    channels, outputs, group = x.shape[1], grad.shape[1], 3 if dropped else 4
    lanes = LANES[torch.float32]
    rows = _scratch("planes", (_up(grid.positions, group), _up(outputs, lanes)), grad.dtype).zero_()
    grid.pixels(rows[: grid.positions, :outputs]).copy_(_channels_last(grad))
    codes = _trit_codes(x) if dropped else _sign_codes(x, grid)
    out = _memory(weight, (len(grid.shifts), _up(channels, 2), rows.shape[1]))
    arrays = rows.numpy(), codes.numpy(), grid.margin, grid.shifts.numpy(), group, out.numpy()
    tiles = rows.shape[1] // lanes
    together = lookup.TILES_TOGETHER if tiles >= 8 * lookup.TILES_TOGETHER else 1
    in_parts(lambda *part: lookup.gathered(*arrays, *part), tiles, together)
    out = out[:, :channels, :outputs]
    if not grid.spatial:
        return out[0].t().mul_(2) if dropped else out[0].t()
    out += _off_the_image(rows[: grid.positions, :outputs], grid)[:, None]
    return out.unflatten(0, (3, 3)).permute(3, 2, 0, 1)


_own = threading.local()


def _scratch(name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
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
    """x in {-1, +1} (B, C, ...) -> codes (positions, C) uint8: of a position and the next three."""
    count, channels = _up(grid.positions, 4) + 2 * grid.margin, x.shape[1]
    bits, codes = _odd_lines(count + 3, channels), _odd_lines(count, channels)
    line = bits[grid.margin : grid.margin + grid.positions, :channels]
    torch.ge(_channels_last(x), 0, out=grid.pixels(line).view(torch.bool))
    arrays = bits.numpy(), codes.numpy()
    in_parts(lambda first, last: pack.sign_codes(*arrays, first, last), count)
    return codes


def _trit_codes(x: Tensor) -> Tensor:
    """x in {-2, 0, +2} (B, C) -> codes (ceil(B / 3), C) uint8 of three rows each."""
    trits = torch.ones(_up(len(x), 3), x.shape[1], dtype=torch.uint8)
    trits[: len(x)] = (x / 2 + 1).to(torch.uint8)
    codes = _odd_lines(len(trits) // 3, x.shape[1])
    first, second, third = trits.unflatten(0, (-1, 3)).unbind(1)
    codes[: len(first), : x.shape[1]] = 9 * first + 3 * second + third
    return codes


def _off_the_image(grads: Tensor, grid: _Grid) -> Tensor:
    """grads (positions, N) -> (9, N): their sum over the pixels from which a tap leaves the image.

    There the input is 0, but its code says -1: this is what `gathered` has subtracted too much.
    """
    total = grid.pixels(grads.unflatten(0, (grid.images, -1)).sum(0))[0]  # (H, W, N)
    inside = F.unfold(torch.ones(1, 1, *total.shape[:2]), 3, padding=1)[0]  # (9, H W)
    return (1 - inside) @ total.flatten(0, 1)

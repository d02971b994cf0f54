"""Binary convolutions on the CPU: what lies under the kernel becomes a row of `xnor_product`."""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.kernels.cpu.llvm import splat
from bnnlib.kernels.cpu.thread_pool import begin, finish, next_task
from bnnlib.kernels.cpu.xnor_product import sum_up, write
from bnnlib.kernels.cpu.xnor_rows import block_start, inner, longest_block, prepare, room, row_shape
from bnnlib.kernels.cpu.xnor_tables import COLUMNS
from bnnlib.kernels.reference import PLANES


class Geometry(NamedTuple):
    """The sizes of a convolution, without those of the batch and of the output's channels."""

    channels: int
    kernel_height: int
    kernel_width: int
    stride: int
    padding: int
    height: int
    width: int
    output_height: int
    output_width: int


@intrinsic
def copy(typing, target, source, size):
    """Copy bytes from one address to another."""

    def emit(context, b, signature, arguments):
        target, source, size = arguments
        pointers = [b.inttoptr(at, ir.IntType(8).as_pointer()) for at in (target, source)]
        cgutils.raw_memcpy(b, *pointers, size, 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def put_run(typing, source, following, shift, mask, up, target):
    """OR a run of bits into PLANES words at an address, from bit `up` on.

    It begins at bit `shift` of PLANES words at `source` and may go on in the words at `following`;
    mask: as many ones as it has bits.
    """
    vector = ir.VectorType(ir.IntType(64), PLANES)

    def emit(context, b, signature, arguments):
        source, following, shift, mask, up, target = arguments
        at = [b.inttoptr(address, vector.as_pointer()) for address in (source, following, target)]
        low, high, before = (b.load(pointer, align=8) for pointer in at)
        left = b.sub(ir.Constant(shift.type, 63), shift)
        one = ir.Constant(shift.type, 1)
        # By 64 in two steps where nothing is shifted: nothing is left of it.
        high = b.shl(b.shl(high, splat(b, left, PLANES)), splat(b, one, PLANES))
        run = b.and_(b.or_(b.lshr(low, splat(b, shift, PLANES)), high), splat(b, mask, PLANES))
        b.store(b.or_(before, b.shl(run, splat(b, up, PLANES))), at[2], align=8)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), emit


@njit(nogil=True, cache=True)
def lines(x, channels, padding, out, first, last):
    """Copy images first .. last - 1 of x (B, H, W, planes, words) uint64 to lines of bits.

    out (B, H + 2 padding, words of a line, planes) uint64, of zeros: pixels follow each other
    without a gap, `padding` of them on each side of the image.
    """
    whole = channels & 63 == 0 and x.shape[3] == 1
    pixel = 8 * x.shape[4]
    for b in range(first, last):
        for y in range(x.shape[1]):
            if whole:
                line = out.ctypes.data + b * out.strides[0] + (y + padding) * out.strides[1]
                source = x.ctypes.data + b * x.strides[0] + y * x.strides[1]
                copy(line + padding * pixel, source, x.shape[2] * pixel)
                continue
            for z in range(x.shape[2]):
                at = (z + padding) * channels
                copy_bits(x[b, y, z].T, 0, out[b, y + padding], at, channels)


@inner
def copy_bits(words, first, out, target, bits):
    """OR bits first .. first + bits - 1 of words (., planes) into `out` from bit `target` on."""
    for done in range(0, bits, 64):
        at = first + done >> 6
        shift = np.uint64(first + done & 63)
        left = min(64, bits - done)
        place = target + done >> 6
        up = np.uint64(target + done & 63)
        mask = ~np.uint64(0) >> np.uint64(64 - left)
        reaches = shift + np.uint64(left) > 64
        enters = up + np.uint64(left) > 64
        for plane in range(words.shape[1]):
            word = words[at, plane] >> shift
            if reaches:
                word |= words[at + 1, plane] << (np.uint64(64) - shift)
            word &= mask
            out[place, plane] |= word << up
            if enters:
                out[place + 1, plane] |= word >> (np.uint64(64) - up)


@inner
def put_runs(x, image, top, first, height, run, words):
    """Set words (1, PLANES) to `height` runs, under 64 bits in all, from bit `first` of lines."""
    at = first >> 6
    mask = (1 << run) - 1
    following = min(at + 1, x.shape[2] - 1)  # where there is none, the run does not reach it
    for plane in range(PLANES):
        words[0, plane] = 0
    for y in range(height):
        line = x.ctypes.data + image * x.strides[0] + (top + y) * x.strides[1]
        low = line + at * x.strides[2]
        high = line + following * x.strides[2]
        put_run(low, high, first & 63, mask, y * run, words.ctypes.data)


@inner
def gather(x, geometry, pixel, words, target):
    """Copy the signs under the kernel at an output pixel to words (., planes), 0 off the image.

    x: `lines`. Signs follow each other without a gap: channel fastest, then kernel column, then
    kernel row. Whole words go to the address `target`.
    """
    channels = geometry.channels
    height = geometry.kernel_height
    image, rest = divmod(pixel, geometry.output_height * geometry.output_width)
    top = rest // geometry.output_width * geometry.stride
    side = rest % geometry.output_width * geometry.stride
    run = geometry.kernel_width * channels
    if height * run < 64 and x.shape[3] == PLANES:
        put_runs(x, image, top, side * channels, height, run, words)
    elif channels & 63:
        words[:] = 0
        for y in range(height):
            copy_bits(x[image, top + y], side * channels, words, y * run, run)
    else:
        at = x.ctypes.data + image * x.strides[0] + (side * channels >> 6) * x.strides[2]
        size = (run >> 6) * x.strides[2]
        for y in range(height):
            copy(target + y * size, at + (top + y) * x.strides[1], size)


@inner
def taps_outside(geometry, pixel, outside):
    """Write the taps off the image at an output pixel to `outside`, and return their number."""
    rest = pixel % (geometry.output_height * geometry.output_width)
    top = rest // geometry.output_width * geometry.stride - geometry.padding
    side = rest % geometry.output_width * geometry.stride - geometry.padding
    width = geometry.kernel_width
    below = top + geometry.kernel_height <= geometry.height
    if min(top, side) >= 0 and below and side + width <= geometry.width:
        return 0
    count = 0
    for tap in range(geometry.kernel_height * width):
        y = top + tap // width
        x = side + tap % width
        if y < 0 or x < 0 or y >= geometry.height or x >= geometry.width:
            outside[count] = tap
            count += 1
    return count


@inner
def add_lost(sums, tile, tap_sums, outside, missing, planes):
    """Add back to sums (R, COLUMNS) what taps off the image were counted for.

    outside (R or more, taps): those of each row, of which the first missing[r] count.
    """
    scale = (1 << planes) - 1
    for r in range(len(sums)):
        for i in range(missing[r]):
            lost = tap_sums[outside[r, i], tile * COLUMNS :]
            for n in range(COLUMNS):
                sums[r, n] += scale * lost[n]


@njit(nogil=True, cache=True)
def conv2d(x, weights, tap_sums, geometry, tables, thresholds, out, bits, blocks, across, tasks):
    """Do what `xnor_product.matmul` does, with the output pixels of images x as rows.

    x: `lines`; geometry: a `Geometry`. tap_sums (taps, N in whole tiles) int32: a tap off the image
    was counted as if -1 (or, of planes, -255) stood there, so its sum is added back.
    """
    begin(tasks)
    planes = x.shape[3]
    tiles = weights.shape[0]
    taps = tap_sums.shape[0]
    k = taps * geometry.channels
    pixels = x.shape[0] * geometry.output_height * geometry.output_width
    most = longest_block(pixels, blocks)
    rows, codes, counts, sums = room(weights, planes, most)
    words = np.empty(((k + 63) // 64, planes), np.uint64)
    outside = np.empty((most, taps), np.int32)
    missing = np.empty(most, np.int32)
    stacked = row_shape(weights, planes)[0]
    direct = weights.itemsize > 1 and planes == 1 and geometry.channels & 63 == 0
    prepared = -1
    task = next_task(tasks)
    while task >= 0:
        low = block_start(pixels, blocks, task // across)
        high = block_start(pixels, blocks, task // across + 1)
        if prepared != low:
            for r in range(high - low):
                target = rows[r].ctypes.data if direct else words.ctypes.data
                gather(x, geometry, low + r, words, target)
                missing[r] = taps_outside(geometry, low + r, outside[r])
                if not direct:
                    prepare(weights, words, tables, codes, rows, r)
            prepared = low
        part = task % across
        for tile in range(tiles * part // across, tiles * (part + 1) // across):
            for r in range(low, high, len(sums)):
                end = min(r + len(sums), high)
                some = sums[: end - r]
                sum_up(weights, tile, rows[(r - low) * stacked :], planes, k, tables, counts, some)
                add_lost(some, tile, tap_sums, outside[r - low :], missing[r - low :], planes)
                write(some, tile, thresholds, out[r:end], bits[r:end])
        finish(tasks)
        task = next_task(tasks)

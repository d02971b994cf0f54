"""Binary convolutions on the CPU: what lies under the kernel becomes a row of `xnor_product`."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.kernels.cpu.llvm import splat
from bnnlib.kernels.cpu.thread_pool import begin, draw, finish
from bnnlib.kernels.cpu.xnor_product import (
    inner,
    longest,
    prepare,
    room,
    row_shape,
    start,
    sum_up,
    write,
)
from bnnlib.kernels.cpu.xnor_tiles import COLUMNS
from bnnlib.kernels.reference import PLANES


@intrinsic
def copy(typing, to, source, size):
    """Copy bytes from one address to another."""

    def emit(context, b, signature, arguments):
        to, source, size = arguments
        pointers = [b.inttoptr(address, ir.IntType(8).as_pointer()) for address in (to, source)]
        cgutils.raw_memcpy(b, *pointers, size, 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def put_run(typing, source, following, shift, mask, up, to):
    """OR a run of bits into PLANES words at an address, from bit `up` on.

    It begins at bit `shift` of PLANES words at `source` and may go on in the words at `following`;
    mask: as many ones as it has bits.
    """
    vector = ir.VectorType(ir.IntType(64), PLANES)

    def emit(context, b, signature, arguments):
        source, following, shift, mask, up, to = arguments
        at = [b.inttoptr(address, vector.as_pointer()) for address in (source, following, to)]
        low, high, before = (b.load(pointer, align=8) for pointer in at)
        left, one = b.sub(ir.Constant(shift.type, 63), shift), ir.Constant(shift.type, 1)
        # By 64 in two steps where nothing is shifted: nothing is left of it.
        high = b.shl(b.shl(high, splat(b, left, PLANES)), splat(b, one, PLANES))
        run = b.and_(b.or_(b.lshr(low, splat(b, shift, PLANES)), high), splat(b, mask, PLANES))
        b.store(b.or_(before, b.shl(run, splat(b, up, PLANES))), at[2], align=8)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), emit


@njit(nogil=True, cache=True)
def lines(x, channels, padding, out, first, last):
    """Images first .. last - 1 of x (B, H, W, planes, words) uint64 -> lines of bits.

    out (B, H + 2 padding, words of a line, planes) uint64, of zeros: pixels follow each other
    without a gap, `padding` of them on each side of the image.
    """
    whole, pixel = channels & 63 == 0 and x.shape[3] == 1, 8 * x.shape[4]
    for b in range(first, last):
        for y in range(x.shape[1]):
            if whole:
                line = out.ctypes.data + b * out.strides[0] + (y + padding) * out.strides[1]
                of = x.ctypes.data + b * x.strides[0] + y * x.strides[1]
                copy(line + padding * pixel, of, x.shape[2] * pixel)
                continue
            for z in range(x.shape[2]):
                at = (z + padding) * channels
                copy_bits(x[b, y, z].T, 0, out[b, y + padding], at, channels)


@inner
def copy_bits(words, start, out, to, bits):
    """OR bits start .. start + bits - 1 of words (., planes) into those of `out` from `to` on."""
    for done in range(0, bits, 64):
        at, shift, left = start + done >> 6, np.uint64(start + done & 63), min(64, bits - done)
        place, up = to + done >> 6, np.uint64(to + done & 63)
        mask = ~np.uint64(0) >> np.uint64(64 - left)
        reaches, enters = shift + np.uint64(left) > 64, up + np.uint64(left) > 64
        for plane in range(words.shape[1]):
            word = words[at, plane] >> shift
            if reaches:
                word |= words[at + 1, plane] << (np.uint64(64) - shift)
            word &= mask
            out[place, plane] |= word << up
            if enters:
                out[place + 1, plane] |= word >> (np.uint64(64) - up)


@inner
def put_runs(x, image, top, start, height, run, words):
    """words (1, PLANES) = `height` runs, fewer than 64 bits in all, from bit `start` of lines."""
    at, mask = start >> 6, (1 << run) - 1
    following = min(at + 1, x.shape[2] - 1)  # where there is none, the run does not reach it
    for plane in range(PLANES):
        words[0, plane] = 0
    for y in range(height):
        line = x.ctypes.data + image * x.strides[0] + (top + y) * x.strides[1]
        low, high = line + at * x.strides[2], line + following * x.strides[2]
        put_run(low, high, start & 63, mask, y * run, words.ctypes.data)


@inner
def gather(x, geometry, pixel, words, to, outside):
    """The signs under the kernel at an output pixel, as words (., planes), 0 off the image.

    x: `lines`. geometry: (channels, kh, kw, stride, padding, H, W, Ho, Wo). Signs follow each other
    without a gap: channel fastest, then kx, then ky. Whole words go to the address `to`.
    outside: set to the taps off the image. Returns how many they are.
    """
    channels, height, width, stride, padding, in_height, in_width, out_height, out_width = geometry
    image, left = divmod(pixel, out_height * out_width)
    top, side = left // out_width * stride, left % out_width * stride
    run = width * channels
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
            copy(to + y * size, at + (top + y) * x.strides[1], size)
    missing, top, side = 0, top - padding, side - padding
    if min(top, side) >= 0 and top + height <= in_height and side + width <= in_width:
        return 0
    for tap in range(height * width):
        y, z = top + tap // width, side + tap % width
        if y < 0 or z < 0 or y >= in_height or z >= in_width:
            outside[missing] = tap
            missing += 1
    return missing


@njit(nogil=True, cache=True)
def conv2d(x, weights, tap_sums, geometry, tables, thresholds, out, bits, blocks, across, pieces):
    """As `matmul`, for the output pixels of images x, as `lines`, for rows.

    tap_sums (taps, N in whole tiles) int32: a tap off the image was counted as if -1 (or, of
    planes, -255) stood there, so its sum is added back.
    """
    begin(pieces)
    planes, tiles, taps = x.shape[3], weights.shape[0], tap_sums.shape[0]
    k, pixels = taps * geometry[0], x.shape[0] * geometry[7] * geometry[8]
    together, scale = longest(pixels, blocks), (1 << planes) - 1
    words = np.empty(((k + 63) // 64, planes), np.uint64)
    rows, codes, counts, sums = room(weights, planes, together)
    outside, missing = np.empty((together, taps), np.int32), np.empty(together, np.int32)
    stacked, prepared = row_shape(weights, planes)[0], -1
    direct = weights.itemsize > 1 and planes == 1 and geometry[0] & 63 == 0
    piece = draw(pieces)
    while piece >= 0:
        block, part = piece // across, piece % across
        low, high = start(pixels, blocks, block), start(pixels, blocks, block + 1)
        if prepared != low:
            for r in range(high - low):
                to = rows[r].ctypes.data if direct else words.ctypes.data
                missing[r] = gather(x, geometry, low + r, words, to, outside[r])
                if not direct:
                    prepare(weights, words, tables, codes, rows, r)
            prepared = low
        for tile in range(tiles * part // across, tiles * (part + 1) // across):
            for r in range(low, high, len(sums)):
                end = min(r + len(sums), high)
                here, of = sums[: end - r], rows[(r - low) * stacked :]
                sum_up(weights, tile, of, planes, k, tables, counts, here)
                for i in range(len(here)):
                    for j in range(missing[r - low + i]):
                        lost = tap_sums[outside[r - low + i, j], tile * COLUMNS :]
                        for n in range(COLUMNS):
                            here[i, n] += scale * lost[n]
                write(here, tile, thresholds, out[r:end], bits[r:end])
        finish(pieces)
        piece = draw(pieces)

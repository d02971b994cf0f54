"""Products of the CPU kernels on NumPy alone, for a processor where there is no torch to try.

Prints the path and how many products were equal to NumPy's own.
"""

import numpy as np

from bnnlib.kernels.cpu import processor, sign_bits
from bnnlib.kernels.cpu.thread_pool import COUNT, LINE
from bnnlib.kernels.cpu.xnor_product import DIFFERENCES, matmul

SHAPES = ((5, 7, 100), (1, 1, 1), (30, 130, 700), (7, 128, 64), (13, 257, 4200), (60, 300, 257))
NO_BOUNDS, NO_SUMS = np.empty(0, np.int32), np.empty((0, 0), np.int32)
NO_WORDS = np.empty((0, 0), np.int64)


def packed_weights(w: np.ndarray, looks_up: bool) -> np.ndarray:
    """(N, K) float32 -> tiles, as `cpu.pack_weights` makes them."""
    tiles, columns = -(-len(w) // 128), np.ascontiguousarray(w.T)
    if looks_up:
        packed = np.empty((tiles, -(-w.shape[1] // 16) * 4, 128), np.uint8)
        sign_bits.half_byte_tiles(columns, packed, 0, tiles)
    else:
        packed = np.empty((tiles, 4, -(-w.shape[1] // 64), 32), np.int64)
        sign_bits.word_tiles(columns, packed, 0, packed.shape[2])
    return packed


def product(rows: np.ndarray, tiles: np.ndarray, k: int, n: int, bounds: np.ndarray) -> np.ndarray:
    """rows (M, planes, words) -> sums (M, N), or words of [sum >= bound]."""
    pieces = np.zeros(5 * LINE, np.int64)
    pieces[COUNT] = 1
    words, sums = NO_WORDS, NO_SUMS
    if len(bounds):
        words = np.empty((len(rows), -(-n // 64)), np.int64)
    else:
        sums = np.empty((len(rows), n), np.int32)
    matmul(rows.view(np.uint64), tiles, k, DIFFERENCES, bounds, sums, words, 1, 1, pieces)
    return words if len(bounds) else sums


def inputs(chance: np.random.Generator, m: int, k: int, planes: bool) -> tuple:
    """Rows as kernels pack them, and the integers that they stand for."""
    if planes:
        numbers = chance.integers(0, 256, (m, k), dtype=np.uint8)
        rows = np.empty((m, 8, -(-k // 64)), np.int64)
        sign_bits.planes(numbers, rows, 0, m)
        return rows, 2 * numbers.astype(np.int64) - 255
    numbers = chance.standard_normal((m, k), dtype=np.float32)
    words = np.empty((m, -(-k // 64)), np.int64)
    assert not sign_bits.signs(numbers, np.int16(0), words, 0, m)
    return words[:, None], np.where(numbers >= 0, 1, -1)


def bits_of(words: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little", count=n)


def main() -> None:
    chance, equal = np.random.default_rng(0), 0
    for m, n, k in SHAPES:
        w = chance.standard_normal((n, k), dtype=np.float32)
        for looks_up in (True, False):
            tiles = packed_weights(w, looks_up)
            for planes in (True, False):
                rows, numbers = inputs(chance, m, k, planes)
                wanted = numbers @ np.where(w >= 0, 1, -1).T
                assert np.array_equal(product(rows, tiles, k, n, NO_BOUNDS), wanted)
                bounds = np.full(len(tiles) * 128, 2**31 - 1, np.int32)
                bounds[:n] = wanted[0]
                found = bits_of(product(rows, tiles, k, n, bounds), n)
                assert np.array_equal(found, wanted >= wanted[0])
                equal += 2
    print(processor.path(), equal)


if __name__ == "__main__":
    main()

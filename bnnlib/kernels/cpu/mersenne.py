"""The words of torch's generator on a CPU (MT19937), compared as they are made.

A word's lower 24 bits times 2^-24 are torch's uniform float32. Words are uint32 before their
tempering: those of the generator's state, and what follows from them by the recurrence.
"""

import numpy as np
from numba import njit

WORDS = 624  # of a state
MIDDLE = 397
AT_ONCE = 208  # words that don't depend on each other: a divisor of WORDS, below WORDS - MIDDLE
UPPER, LOWER, MATRIX = (np.uint32(bits) for bits in (0x80000000, 0x7FFFFFFF, 0x9908B0DF))
FIRST_MASK, SECOND_MASK, MANTISSA = (np.uint32(m) for m in (0x9D2C5680, 0xEFC60000, 0xFFFFFF))
SCALE = np.float32(2**-24)
LINE = 16  # words in a line of a cache


@njit(nogil=True, cache=True)
def extend(words, count):
    """Make words[WORDS:count] from words[:WORDS]; count is a multiple of WORDS."""
    for start in range(0, count - WORDS, AT_ONCE):
        old, following = words[start : start + AT_ONCE], words[start + 1 : start + 1 + AT_ONCE]
        middle = words[start + MIDDLE : start + MIDDLE + AT_ONCE]
        new = words[start + WORDS : start + WORDS + AT_ONCE]
        for i in range(AT_ONCE):
            mixed = (old[i] & UPPER) | (following[i] & LOWER)
            odd = MATRIX if following[i] & np.uint32(1) else np.uint32(0)
            new[i] = middle[i] ^ (mixed >> np.uint32(1)) ^ odd


@njit(nogil=True)
def uniform(word):
    """A float32 in [0, 1)."""
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & FIRST_MASK
    word ^= (word << np.uint32(15)) & SECOND_MASK
    word ^= word >> np.uint32(18)
    return np.float32(np.int32(word & MANTISSA)) * SCALE


@njit(nogil=True)
def drawn(x, number):
    """`binarize.sample_sign` of one number; NaN as it is."""
    signed = np.float32(1) if number < (x + np.float32(1)) * np.float32(0.5) else np.float32(-1)
    return signed if x == x else x


@njit(nogil=True, cache=True)
def signs(words, x, out, first, last):
    """Signs drawn for x, (N,) float32, a word for each."""
    words, x, out = words[first:last], x[first:last], out[first:last]
    for i in range(len(x)):
        out[i] = drawn(x[i], uniform(words[i]))


@njit(nogil=True, cache=True)
def signs_of_images(words, x, out, first, last):
    """The same for images x (B, pixels, C) of which words (B, C, pixels) have another order.

    A piece is a LINE of pixels: pieces are counted through all images.
    """
    pixels, channels = x.shape[1:]
    lines = -(-pixels // LINE)
    numbers = np.empty((LINE, channels + LINE), np.float32)  # rows in different sets of a cache
    for piece in range(first, last):
        image, start = piece // lines, piece % lines * LINE
        size = min(LINE, pixels - start)
        for c in range(channels):
            given = words[image, c, start : start + size]
            for i in range(size):
                numbers[i, c] = uniform(given[i])
        for i in range(size):
            given, to, own = x[image, start + i], out[image, start + i], numbers[i]
            for c in range(channels):
                to[c] = drawn(given[c], own[c])


@njit(nogil=True, cache=True)
def drop(words, x, out, keeps, rate, left, first, last):
    """x where a number is at least `rate`, else 0, over left: 1 - rate. keeps: bytes, which."""
    words, x = words[first:last], x[first:last]
    out, keeps = out[first:last], keeps[first:last]
    for i in range(len(x)):
        keep = uniform(words[i]) >= rate
        keeps[i] = keep
        out[i] = x[i] * np.float32(keep) / left


@njit(nogil=True, cache=True)
def drop_back(grad, keeps, out, left, first, last):
    """The gradient of x from that of out."""
    grad, keeps, out = grad[first:last], keeps[first:last], out[first:last]
    for i in range(len(grad)):
        out[i] = grad[i] / left * np.float32(keeps[i])

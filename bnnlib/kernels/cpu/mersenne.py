"""The words of torch's generator on a CPU (MT19937), compared as they are made.

A word's lower 24 bits times 2^-24 are torch's uniform float32. Words are uint32 before their
tempering: those of the generator's state, and what follows from them by the recurrence.
"""

import numpy as np
from numba import njit

STATE_WORDS = 624
MIDDLE_WORD = 397
# Words that don't depend on each other: a divisor of STATE_WORDS, below STATE_WORDS - MIDDLE_WORD
WORDS_PER_STEP = 208
UPPER, LOWER, MATRIX = (np.uint32(bits) for bits in (0x80000000, 0x7FFFFFFF, 0x9908B0DF))
FIRST_MASK, SECOND_MASK, MANTISSA = (np.uint32(m) for m in (0x9D2C5680, 0xEFC60000, 0xFFFFFF))
SCALE = np.float32(2**-24)
PIXELS_PER_PIECE = 16  # their words fill a line of a cache


@njit(nogil=True, cache=True)
def extend(words, count):
    """Make words[STATE_WORDS:count] from words[:STATE_WORDS]; count: a multiple of their number."""
    for start in range(0, count - STATE_WORDS, WORDS_PER_STEP):
        old = words[start : start + WORDS_PER_STEP]
        following = words[start + 1 : start + 1 + WORDS_PER_STEP]
        middle = words[start + MIDDLE_WORD : start + MIDDLE_WORD + WORDS_PER_STEP]
        new = words[start + STATE_WORDS : start + STATE_WORDS + WORDS_PER_STEP]
        for i in range(WORDS_PER_STEP):
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
    """Draw signs for x, (N,) float32, by a word for each."""
    words = words[first:last]
    x = x[first:last]
    out = out[first:last]
    for i in range(len(x)):
        out[i] = drawn(x[i], uniform(words[i]))


@njit(nogil=True, cache=True)
def signs_of_images(words, x, out, first, last):
    """Do what `signs` does for images x (B, pixels, C), whose words (B, C, pixels) lie otherwise.

    A piece is PIXELS_PER_PIECE pixels: pieces are counted through all images.
    """
    pixels, channels = x.shape[1:]
    lines = -(-pixels // PIXELS_PER_PIECE)
    width = channels + PIXELS_PER_PIECE  # so that rows lie in different sets of a cache
    numbers = np.empty((PIXELS_PER_PIECE, width), np.float32)
    for piece in range(first, last):
        image = piece // lines
        start = piece % lines * PIXELS_PER_PIECE
        size = min(PIXELS_PER_PIECE, pixels - start)
        for c in range(channels):
            given = words[image, c, start : start + size]
            for i in range(size):
                numbers[i, c] = uniform(given[i])
        for i in range(size):
            given = x[image, start + i]
            target = out[image, start + i]
            uniforms = numbers[i]
            for c in range(channels):
                target[c] = drawn(given[c], uniforms[c])


@njit(nogil=True, cache=True)
def drop(words, x, out, keeps, rate, left, first, last):
    """Write x / left where a number drawn is at least `rate`, else 0; left is 1 - rate.

    keeps: bytes, 1 where x was kept.
    """
    words = words[first:last]
    x = x[first:last]
    out = out[first:last]
    keeps = keeps[first:last]
    for i in range(len(x)):
        keep = uniform(words[i]) >= rate
        keeps[i] = keep
        out[i] = x[i] * np.float32(keep) / left


@njit(nogil=True, cache=True)
def drop_back(grad, keeps, out, left, first, last):
    """Write the gradient of x, from that of `drop`'s out."""
    grad = grad[first:last]
    keeps = keeps[first:last]
    out = out[first:last]
    for i in range(len(grad)):
        out[i] = grad[i] / left * np.float32(keeps[i])

/* @NAME@: @BITS@ weights of one bit each. Written by python -m bnnlib.export.
 *
 * C99 without dependencies, for words of 8, 16, 32 or 64 bits (-DBNN_WORD=...). No arithmetic is
 * done on real numbers: the scores are looked up, so they are the same on every machine.
 *
 *   int predict(const uint8_t pixels[@INPUTS@]);
 *       the class of a picture
 *   int bnn_inside(const uint8_t *pixels, bnn_word *bits, float *scores);
 *       the same, with the bits of all hidden layers, pooled (BNN_HIDDEN_WORDS words; each layer,
 *       of a convolution each place, begins on a multiple of 64 bits), and BNN_CLASSES scores
 *
 * With -DBNN_TEST there is a main, which tries the network on pictures whose bits and scores are
 * known. With -DBNN_PORTABLE bits are counted without the compiler's help.
 */
#include <stdint.h>
#include <string.h>

#ifndef BNN_WORD
#if UINTPTR_MAX > 0xffffffffu
#define BNN_WORD 64
#else
#define BNN_WORD 32
#endif
#endif

/* W writes 64 bits of a row, given as two halves, as words. */
#if BNN_WORD == 64
typedef uint64_t bnn_word;
#define W(low, high) ((uint64_t)(high) << 32 | (low))
#elif BNN_WORD == 32
typedef uint32_t bnn_word;
#define W(low, high) (low), (high)
#elif BNN_WORD == 16
typedef uint16_t bnn_word;
#define HALVES(x) (uint16_t)((x) & 0xffffu), (uint16_t)((x) >> 16)
#define W(low, high) HALVES(low), HALVES(high)
#else
typedef uint8_t bnn_word;
#define QUARTERS(x) \
    (uint8_t)((x) & 0xffu), (uint8_t)((x) >> 8 & 0xffu), (uint8_t)((x) >> 16 & 0xffu), \
    (uint8_t)((x) >> 24)
#define W(low, high) QUARTERS(low), QUARTERS(high)
#endif
#define ALL ((bnn_word)~(bnn_word)0)
#define WORDS(bits) (((bits) + 63) / 64 * (64 / BNN_WORD))

@SIZES@

@TABLES@

/* How many bits of a word are 1. */
#if defined(__GNUC__) && !defined(BNN_PORTABLE)
static inline int32_t count(bnn_word x)
{
    return BNN_WORD == 64 ? __builtin_popcountll(x) : __builtin_popcountl((unsigned long)x);
}
#else
static int32_t count(uint64_t x)
{
    x -= x >> 1 & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (int32_t)(x * UINT64_C(0x0101010101010101) >> 56);
}
#endif

static void set(bnn_word *bits, int place)
{
    bits[place / BNN_WORD] |= (bnn_word)((bnn_word)1 << place % BNN_WORD);
}

/* At how many places a row of weights and its input differ in sign. */
static inline int32_t differ(const bnn_word *x, const bnn_word *row, int words)
{
    int32_t found = 0;
    for (int i = 0; i < words; i++)
        found += count(x[i] ^ row[i]);
    return found;
}

/* The bits of a layer: the sum is K - 2 differ, and a bit says whether it reaches the threshold.
 * words: of a row, whose gaps are 0 on both sides and never differ. */
static inline void dense(const bnn_word *x, const bnn_word *rows, const int32_t *thresholds,
                         int units, int inputs, int words, bnn_word *bits)
{
    for (int n = 0; n < units; n++)
        if (inputs - 2 * differ(x, rows + (long)n * words, words) >= thresholds[n])
            set(bits, n);
}

/* Pixels p are the integers 2 p - 255: their eight bits, as signs, weigh 1, 2, 4, ..., 128.
 * planes: word i of plane b at 8 i + b. inside: which bits count, or NULL for all; terms: how
 * many those are. */
static inline int32_t weighted(const bnn_word *planes, const bnn_word *inside, const bnn_word *row,
                               int terms, int words)
{
    int32_t found[8] = {0}, sum = 255 * (int32_t)terms;
    for (int i = 0; i < words; i++)
        for (int b = 0; b < 8; b++)
            found[b] += count((bnn_word)((planes[8 * i + b] ^ row[i]) & (inside ? inside[i] : ALL)));
    for (int b = 0; b < 8; b++)
        sum -= found[b] * ((int32_t)2 << b);
    return sum;
}

static inline void set_planes(bnn_word *planes, int place, uint8_t pixel)
{
    for (int b = 0; b < 8; b++)
        planes[8 * (place / BNN_WORD) + b] |=
            (bnn_word)((bnn_word)(pixel >> b & 1) << place % BNN_WORD);
}

static inline void first_dense(const uint8_t *pixels, const bnn_word *rows,
                               const int32_t *thresholds, int units, bnn_word *bits)
{
    bnn_word planes[8 * WORDS(BNN_INPUTS)] = {0};
    for (int k = 0; k < BNN_INPUTS; k++)
        set_planes(planes, k, pixels[k]);
    for (int n = 0; n < units; n++) {
        const bnn_word *row = rows + (long)n * WORDS(BNN_INPUTS);
        if (weighted(planes, NULL, row, BNN_INPUTS, WORDS(BNN_INPUTS)) >= thresholds[n])
            set(bits, n);
    }
}

/* Convolutions are 3x3 with zeros around: a place beyond the border adds nothing. Images lie
 * place by place, a place's channels beginning on a multiple of 64 bits; pixels channel by
 * channel. */
static inline int beyond(int y, int x, int side)
{
    return y < 0 || x < 0 || y >= side || x >= side;
}

static inline void first_convolution(int side, const uint8_t *pixels, const bnn_word *rows,
                                     const int32_t *thresholds, int units, bnn_word *bits)
{
    enum { PLACES = 9 * BNN_IMAGE_CHANNELS };
    for (int at = 0; at < side * side; at++) {
        bnn_word planes[8 * WORDS(PLACES)] = {0}, inside[WORDS(PLACES)] = {0};
        int terms = 0;
        for (int k = 0; k < PLACES; k++) {
            int y = at / side + k % 9 / 3 - 1, x = at % side + k % 3 - 1;
            if (beyond(y, x, side))
                continue;
            set(inside, k);
            set_planes(planes, k, pixels[(k / 9 * side + y) * side + x]);
            terms++;
        }
        for (int n = 0; n < units; n++) {
            const bnn_word *row = rows + (long)n * WORDS(PLACES);
            if (weighted(planes, inside, row, terms, WORDS(PLACES)) >= thresholds[n])
                set(bits + (long)at * WORDS(units), n);
        }
    }
}

static inline void convolution(const bnn_word *x, const bnn_word *rows, const int32_t *thresholds,
                               int side, int units, int channels, bnn_word *bits)
{
    const int words = WORDS(channels);
    for (int at = 0; at < side * side; at++) {
        bnn_word patch[9 * WORDS(BNN_CHANNELS)]; /* what the kernel covers, where all of it counts */
        int y = at / side, column = at % side;
        int whole = y > 0 && column > 0 && y < side - 1 && column < side - 1;
        for (int tap = 0; whole && tap < 9; tap += 3)
            memcpy(patch + tap * words, x + ((long)(y + tap / 3 - 1) * side + column - 1) * words,
                   3 * (size_t)words * sizeof *patch);
        for (int n = 0; n < units; n++) {
            const bnn_word *row = rows + (long)n * 9 * words;
            int32_t sum = whole ? 9 * channels - 2 * differ(patch, row, 9 * words) : 0;
            for (int tap = 0; !whole && tap < 9; tap++) {
                int above = y + tap / 3 - 1, left = column + tap % 3 - 1;
                if (!beyond(above, left, side))
                    sum += channels - 2 * differ(x + ((long)above * side + left) * words,
                                                 row + tap * words, words);
            }
            if (sum >= thresholds[n])
                set(bits + (long)at * WORDS(units), n);
        }
    }
}

/* 2x2: by OR, for the channels of by_and by AND. x is wiped for the next layer. */
static inline void pool(bnn_word *x, const bnn_word *by_and, int side, int units, bnn_word *bits)
{
    const int words = WORDS(units);
    for (int at = 0; at < side * side / 4; at++)
        for (int i = 0; i < words; i++) {
            int row = at / (side / 2) * 2, column = at % (side / 2) * 2;
            const bnn_word *corner = x + ((long)row * side + column) * words + i;
            bnn_word a = corner[0], b = corner[words];
            bnn_word c = corner[(long)side * words], d = corner[(side + 1L) * words];
            bnn_word any = a | b | c | d, all = a & b & c & d;
            bits[(long)at * words + i] = any ^ ((any ^ all) & by_and[i]);
        }
    memset(x, 0, (size_t)side * (size_t)side * (size_t)words * sizeof *x);
}

int bnn_inside(const uint8_t *pixels, bnn_word *bits, float *scores)
{
    int best = 0;
@SCRATCH@    memset(bits, 0, BNN_HIDDEN_WORDS * sizeof *bits);
@LAYERS@
    for (int n = 0; n < BNN_CLASSES; n++) {
        const bnn_word *row = rows_last + n * WORDS(BNN_LAST);
        scores[n] = table[n][differ(bits + BNN_AT_LAST, row, WORDS(BNN_LAST))];
        if (scores[n] > scores[best])
            best = n;
    }
    return best;
}

int predict(const uint8_t pixels[BNN_INPUTS])
{
    bnn_word bits[BNN_HIDDEN_WORDS];
    float scores[BNN_CLASSES];
    return bnn_inside(pixels, bits, scores);
}

#ifdef BNN_TEST
#include <stdio.h>

#define BNN_TRIALS @TRIALS@
static const uint8_t trial_pixels[BNN_TRIALS][BNN_INPUTS] = {
@PIXELS@
};
static const bnn_word trial_bits[BNN_TRIALS][BNN_HIDDEN_WORDS] = {
@TRIAL_BITS@
};
static const float trial_scores[BNN_TRIALS][BNN_CLASSES] = {
@TRIAL_SCORES@
};

int main(void)
{
    int right = 0;
    for (int i = 0; i < BNN_TRIALS; i++) {
        bnn_word bits[BNN_HIDDEN_WORDS];
        float scores[BNN_CLASSES];
        int chosen = bnn_inside(trial_pixels[i], bits, scores), best = 0;
        for (int n = 1; n < BNN_CLASSES; n++)
            if (trial_scores[i][n] > trial_scores[i][best])
                best = n;
        right += chosen == best && predict(trial_pixels[i]) == best
            && !memcmp(bits, trial_bits[i], sizeof bits)
            && !memcmp(scores, trial_scores[i], sizeof scores);
    }
    printf("%d of %d pictures: every bit, score and class as expected\n", right, BNN_TRIALS);
    return right != BNN_TRIALS;
}
#endif

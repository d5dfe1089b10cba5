/* How do codes of less than 8 bits become vectors of four codes in each lane, and what are they times four numbers each?
 *
 * Covers: the order of inputs in such vectors, which rounded rows are laid in; a piece's vectors, and their dot product.
 * Does not cover: adding products up (dots.h), codes of 8 bits, scales (integers.c).
 */
#ifndef SHARDMESH_FOURS_H
#define SHARDMESH_FOURS_H

#include "dots.h"

enum { WORDS = PIECE / 4 }; /* of four codes each */
/* Constant bounds, since clang unrolls before it inlines (kernel.c). */
#define EACH_WORD(w, first, stop) UNROLLED for (int w = 0; w < WORDS; w++) if (w >= (first) && w < (stop))

/* Of two neighbouring words of six codes: codes n and n + 3 of both; what the fifth word and the highest bits have. */
static const uint8_t inputs_by_words[PIECE] = {
    0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11, 12, 18, 15, 21, 13, 19, 16, 22, 14, 20, 17, 23, 24, 25, 27, 28, 26, 30, 29, 31,
};

/* Return where in a piece the input lies whose number is the `number`-th in that order. */
ALWAYS_INLINE int input_at(enum order order, int number) {
    const int word = number / 4, own = number % 4;
    if (order == BY_TWO) return word / 2 * 8 + word % 2 + 2 * own;
    if (order == BY_WORDS) return inputs_by_words[number];
    return order == BY_FOUR ? word / 4 * 16 + word % 4 + 4 * own : number;
}

/* Return a code at byte `byte` of words in which all other bits are zeros. */
ALWAYS_INLINE words code_in_byte(const int bits, const words *word, int input, int byte) {
    const int a_word = 32 / bits, at = input % a_word * bits - 8 * byte;
    const uint32_t mask = ((1u << bits) - 1) << 8 * byte;
    if (input >= a_word * bits) return (code_at(bits, word, input) & ((1u << bits) - 1)) << 8 * byte;
    return (at >= 0 ? word[input / a_word] >> at : word[input / a_word] << -at) & mask;
}

#if defined(SHARDMESH_AVX2)

/* Return the lower 16 bits of each of one's lanes and the upper ones of the other's. */
ALWAYS_INLINE words halves_of(words lower, words upper) {
    return (words)_mm256_blend_epi16((__m256i)lower, (__m256i)upper, 0xAA);
}

/* A lane's lower half has codes twice as large as they are, so that one shift brings two of a word to their bytes. */
ALWAYS_INLINE void take_codes_of_5(const words *word, words *own) {
    const uint32_t first = 0x001F003E, next = 0x1F003E00;
    UNROLLED for (int pair = 0; pair < 2; pair++) {
        const words one = word[2 * pair], other = word[2 * pair + 1];
        own[3 * pair] = (one << 1 & first) | (other << 9 & next);
        own[3 * pair + 1] = (one >> 4 & first) | (other << 4 & next);
        own[3 * pair + 2] = (one >> 9 & first) | (other >> 1 & next);
    }
    own[6] = (word[4] << 1 & first) | (word[4] << 4 & next);
    own[7] = (word[4] >> 9 & first) | (halves_of(word[0] >> 21, word[2] >> 6) & 0x03000600u) |
             (halves_of(word[1] >> 19, word[3] >> 4) & 0x0C001800u) |
             (halves_of(word[4] >> 17, word[4] >> 3) & 0x10002000u);
}
ALWAYS_INLINE whole_numbers added_fours(const int bits, partial sum) {
    return bits == 5 ? (whole_numbers)_mm256_madd_epi16(sum, _mm256_set1_epi32(0x00020001)) : added(sum);
}
enum { DOUBLED_BITS = 5 };

#else

ALWAYS_INLINE void take_codes_of_5(const words *word, words *own) {
    EACH_WORD(w, 0, WORDS) {
        own[w] = code_in_byte(5, word, input_at(BY_WORDS, 4 * w), 0);
        UNROLLED for (int b = 1; b < 4; b++) own[w] |= code_in_byte(5, word, input_at(BY_WORDS, 4 * w + b), b);
    }
}
ALWAYS_INLINE whole_numbers added_fours(const int bits, partial sum) { return bits ? added(sum) : added(sum); }
enum { DOUBLED_BITS = 0 };

#endif

/* own[WORDS] = the codes of a piece, four to a lane, in the order of their number of bits. */
ALWAYS_INLINE void take_codes(const int bits, const words *word, words *own) {
    if (bits == 5) take_codes_of_5(word, own);
    else EACH_WORD(w, 0, WORDS) {
        if (bits == 4) own[w] = word[w / 2] >> 4 * (w % 2) & 0x0F0F0F0Fu;
        else if (bits == 2) own[w] = word[w / 4] >> 2 * (w % 4) & 0x03030303u;
        else own[w] = code_in_byte(bits, word, 4 * w, 0) | code_in_byte(bits, word, 4 * w + 1, 1) |
                      code_in_byte(bits, word, 4 * w + 2, 2) | code_in_byte(bits, word, 4 * w + 3, 3);
    }
}

/* Return codes times numbers, of words `first` up to `stop`. */
ALWAYS_INLINE whole_numbers dot(const int bits, const words *codes, const int8_t *numbers, const int first,
                                const int stop) {
    whole_numbers sum = {0};
    partial own = no_products();
    EACH_WORD(w, first, stop) {
        own = add_products(own, codes[w], numbers + 4 * w);
        if ((w + 1 - first) % words_at_once(bits) == 0 || w + 1 == stop) sum += added_fours(bits, own), own = no_products();
    }
    return bits == DOUBLED_BITS ? sum >> 1 : sum;
}

#endif

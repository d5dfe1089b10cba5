/* Which functions does each instruction set offer for numbers as they are stored?
 *
 * Covers: the types that stored.c (one object for each instruction set) and conversions.c share.
 */
#ifndef SHARDMESH_STORED_H
#define SHARDMESH_STORED_H

#include "product.h"

#include <stddef.h>
#include <stdint.h>

/* to[i] = from[i], exactly; `from` has any alignment. */
typedef void widen_numbers(const char *from, enum weight_kind kind, ptrdiff_t count, float *to);
/* to[i] = the number nearest to from[i], ties to even; too large ones become infinity, what is not a number stays none. */
typedef void narrow_numbers(const float *from, enum weight_kind kind, ptrdiff_t count, char *to);

widen_numbers widen_numbers_avx512, widen_numbers_avx2, widen_numbers_neon;
narrow_numbers narrow_numbers_avx512, narrow_numbers_avx2, narrow_numbers_neon;

#endif

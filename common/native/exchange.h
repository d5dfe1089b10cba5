/* What is sent to one peer, and what has come from it?
 *
 * Covers: the memory of one exchange, shared with common/native/library.py. Does not cover: exchanging (exchange.c).
 */
#ifndef SHARDMESH_EXCHANGE_H
#define SHARDMESH_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

/* What a message begins with: a record of TLS (RFC 8446, 5.1), or four bytes of length. */
enum peer_framing { TLS_RECORD, PLAIN_FRAME };

struct peer {
    const char *out;
    ptrdiff_t out_count;
    ptrdiff_t sent_count; /* of `out`; less where there was no room for more */
    void *into;
    ptrdiff_t room;
    ptrdiff_t received_count;
    int64_t came_nanoseconds; /* when a whole record or frame was here; 0: it is not */
    int fd;
    int framing;
    int send_error; /* errno; 0: none */
    int receive_error; /* the same */
    int has_ended; /* the peer sends no more */
};

#endif

/* What is sent to one peer, and what has come from it?
 *
 * Covers: the memory of exchanges, shared with common/native/library.py. Does not cover: exchanging (exchange.c,
 * rounds.c).
 */
#ifndef SHARDMESH_EXCHANGE_H
#define SHARDMESH_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

#include "waiting.h"

/* What a message begins with: a record of TLS (RFC 8446, 5.1) that Python takes apart, or four bytes of length. */
enum peer_framing { TLS_RECORD, PLAIN_FRAME };

/* OpenSSL's functions, found where Python's own ssl has them (common/trust/libssl.py): SSL_read, SSL_write,
 * SSL_get_error, BIO_read, BIO_write, BIO_ctrl_pending, ERR_clear_error. */
typedef int tls_transfer(void *ssl_or_bio, void *into, int room);
typedef int tls_output(void *ssl_or_bio, const void *from, int count);
typedef int tls_error(const void *ssl, int outcome);
typedef size_t tls_pending(void *bio);
typedef void tls_clear(void);
struct tls_functions {
    tls_transfer *read;
    tls_output *write;
    tls_error *get_error;
    tls_transfer *take;
    tls_output *put;
    tls_pending *pending;
    tls_clear *clear_errors;
};

/* One connection of TLS, which sees memory only; whoever has made it keeps it as long as this is used. */
struct tls {
    const struct tls_functions *functions;
    void *ssl;
    void *in; /* what has come from the socket */
    void *out; /* what is to go over it */
};

struct peer {
    const char *out;
    ptrdiff_t out_count;
    ptrdiff_t sent_count; /* of `out`; less where there was no room for more: 0 with TLS, whose `out` has the rest */
    void *into;
    ptrdiff_t room;
    ptrdiff_t received_count;
    int64_t came_nanoseconds; /* when a whole record or frame was here; 0: it is not */
    const struct tls *tls; /* `out` is encrypted here and `into` decrypted; NULL: they are as the socket has them */
    int fd;
    int framing;
    int send_error; /* errno; 0: none */
    int receive_error; /* the same */
    int has_ended; /* the peer sends no more */
    int is_near; /* its next message comes as soon as a core of this machine is free for it */
    struct patience patience; /* for those */
};

/* What one rank's packed answer says (common/wire/packed_round.py) but for its numbers, and when it was here. */
struct answered {
    int64_t came_nanoseconds;
    int64_t compute_nanoseconds;
    int64_t tile_wait_nanoseconds;
    int64_t handling_nanoseconds;
    int64_t queue_nanoseconds;
    int64_t core_wait_nanoseconds;
    int64_t starved_nanoseconds;
};

/* What rounds of one group have in common. */
struct round {
    void *frame; /* room for a message with its length */
    ptrdiff_t room;
    int limit_milliseconds;
    int in_order; /* see shardmesh_exchange */
    int64_t sent_nanoseconds;
    struct answered *answered; /* one a peer */
};

#endif

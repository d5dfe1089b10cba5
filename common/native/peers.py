"""What do Python and C share of an exchange of messages, as ctypes has it?

Covers: the structures of exchange.h and sweep.h. Does not cover: the functions that take them (library.py), who fills
them in (coordinator/ranks/quick_rounds.py, coordinator/ranks/transports/exchange.py, common/trust/native_tls.py,
shardnode/listeners/answer_lane.py).
"""

from __future__ import annotations

import ctypes

TLS_RECORD, PLAIN_FRAME = 0, 1
"""What a peer's bytes begin with."""


class TlsFunctions(ctypes.Structure):
    """`struct tls_functions` of exchange.h: addresses of OpenSSL's functions."""

    _fields_ = (
        ("read", ctypes.c_void_p), ("write", ctypes.c_void_p), ("get_error", ctypes.c_void_p),
        ("take", ctypes.c_void_p), ("put", ctypes.c_void_p), ("pending", ctypes.c_void_p),
        ("clear_errors", ctypes.c_void_p),
    )  # fmt: skip


class Tls(ctypes.Structure):
    """`struct tls` of exchange.h: one connection."""

    _fields_ = (
        ("functions", ctypes.POINTER(TlsFunctions)), ("ssl", ctypes.c_void_p), ("in", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    )  # fmt: skip


class Patience(ctypes.Structure):
    """`struct patience` of waiting.h."""

    _fields_ = (("trouble", ctypes.c_int), ("passes", ctypes.c_int))


class Peer(ctypes.Structure):
    """`struct peer` of exchange.h."""

    _fields_ = (
        ("out", ctypes.c_char_p), ("out_count", ctypes.c_ssize_t), ("sent_count", ctypes.c_ssize_t),
        ("into", ctypes.c_void_p), ("room", ctypes.c_ssize_t), ("received_count", ctypes.c_ssize_t),
        ("came_nanoseconds", ctypes.c_longlong), ("tls", ctypes.POINTER(Tls)), ("fd", ctypes.c_int),
        ("framing", ctypes.c_int), ("send_error", ctypes.c_int), ("receive_error", ctypes.c_int),
        ("has_ended", ctypes.c_int), ("is_near", ctypes.c_int), ("patience", Patience),
    )  # fmt: skip


class Answered(ctypes.Structure):
    """`struct answered` of exchange.h: what one rank says of its part in a round."""

    _fields_ = (
        ("came_nanoseconds", ctypes.c_longlong), ("compute_nanoseconds", ctypes.c_longlong),
        ("tile_wait_nanoseconds", ctypes.c_longlong), ("handling_nanoseconds", ctypes.c_longlong),
        ("queue_nanoseconds", ctypes.c_longlong), ("core_wait_nanoseconds", ctypes.c_longlong),
        ("starved_nanoseconds", ctypes.c_longlong),
    )  # fmt: skip


class Round(ctypes.Structure):
    """`struct round` of exchange.h: what rounds of one group have in common."""

    _fields_ = (
        ("frame", ctypes.c_void_p), ("room", ctypes.c_ssize_t), ("limit_milliseconds", ctypes.c_int),
        ("in_order", ctypes.c_int), ("sent_nanoseconds", ctypes.c_longlong), ("answered", ctypes.POINTER(Answered)),
    )  # fmt: skip


class SweepBlock(ctypes.Structure):
    """`struct sweep_block` of sweep.h."""

    _fields_ = (
        ("norm", ctypes.c_void_p), ("late_bias", ctypes.c_void_p), ("kind", ctypes.c_int), ("layer", ctypes.c_int),
        ("lane", ctypes.c_int),
    )  # fmt: skip


class Lane(ctypes.Structure):
    """`struct lane` of sweep.h: who takes part in blocks of one kind."""

    _fields_ = (("peers", ctypes.POINTER(Peer)), ("count", ctypes.c_ssize_t), ("round", ctypes.POINTER(Round)))


class SweptRound(ctypes.Structure):
    """`struct swept_round` of sweep.h: when what happened in a round."""

    _fields_ = (
        ("started_nanoseconds", ctypes.c_longlong), ("sent_nanoseconds", ctypes.c_longlong),
        ("finished_nanoseconds", ctypes.c_longlong),
    )  # fmt: skip


class Stretch(ctypes.Structure):
    """`struct stretch` of sweep.h: rounds that follow one another."""

    _fields_ = (
        ("blocks", ctypes.POINTER(SweepBlock)), ("block_count", ctypes.c_ssize_t), ("lanes", ctypes.POINTER(Lane)),
        ("most_ranks", ctypes.c_ssize_t), ("first_call_id", ctypes.c_longlong), ("sweep_id", ctypes.c_longlong),
        ("until_nanoseconds", ctypes.c_longlong), ("row_count", ctypes.c_ssize_t), ("width", ctypes.c_ssize_t),
        ("norm_epsilon", ctypes.c_float), ("flags", ctypes.c_int), ("has_output", ctypes.c_int),
        ("hidden", ctypes.c_void_p), ("output", ctypes.c_void_p), ("normed", ctypes.c_void_p),
        ("times", ctypes.c_void_p), ("answered", ctypes.c_void_p),
    )  # fmt: skip


class RankSums(ctypes.Structure):
    """`struct rank_sums` of sweep.h."""

    _fields_ = (
        ("trip_seconds", ctypes.c_double), ("wait_seconds", ctypes.c_double), ("slowest_count", ctypes.c_longlong),
        ("last_count", ctypes.c_longlong),
    )  # fmt: skip


class Tally(ctypes.Structure):
    """`struct tally` of sweep.h: sums of many rounds."""

    _fields_ = (
        ("rank_count", ctypes.c_ssize_t), ("most_ranks", ctypes.c_ssize_t), ("bounds", ctypes.c_void_p),
        ("bound_count", ctypes.c_ssize_t), ("trip_counts", ctypes.c_void_p), ("ranks", ctypes.POINTER(RankSums)),
        ("seconds", ctypes.c_double), ("compute_nanoseconds", ctypes.c_longlong),
        ("tile_wait_nanoseconds", ctypes.c_longlong),
    )  # fmt: skip

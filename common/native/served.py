"""What do Python and C share of a node that answers block after block without Python between them, as ctypes has it?

Covers: the structures of serving.h, and what its functions take. Does not cover: loading the library (library.py), who
fills the structures in (shardnode/work/slice_at_work.py, shardnode/work/native_blocks.py, shardnode/sessions,
common/weights/cached_reads.py).
"""

from __future__ import annotations

import ctypes

from common.native.peers import Peer


class Distribution(ctypes.Structure):
    """`struct distribution` of serving.h."""

    _fields_ = (
        ("bounds", ctypes.POINTER(ctypes.c_double)), ("bound_count", ctypes.c_ssize_t),
        ("counts", ctypes.POINTER(ctypes.c_longlong)), ("total", ctypes.c_double),
    )  # fmt: skip


class NodeWork(ctypes.Structure):
    """`struct node_work` of serving.h."""

    _fields_ = (
        ("turn", ctypes.c_void_p), ("compute_nanoseconds", ctypes.c_longlong),
        ("queue_nanoseconds", ctypes.c_longlong), ("compute_seconds", ctypes.POINTER(Distribution) * 2),
    )  # fmt: skip


class SharedReads(ctypes.Structure):
    """`struct shared_reads` of serving.h."""

    _fields_ = (
        ("in_use", ctypes.c_void_p), ("is_allowed", ctypes.c_int), ("has_given_up", ctypes.c_int),
        ("is_closed", ctypes.c_int), ("bytes_total", ctypes.c_longlong), ("tiles_total", ctypes.c_longlong),
    )  # fmt: skip


class CachedBlock(ctypes.Structure):
    """`struct cached_block` of serving.h."""

    _fields_ = (("tile_count", ctypes.c_ssize_t), ("byte_count", ctypes.c_longlong), ("is_first", ctypes.c_int))


class ReadyBlocks(ctypes.Structure):
    """`struct ready_blocks` of serving.h."""

    _fields_ = (
        ("model", ctypes.c_void_p), ("blocks", ctypes.POINTER(ctypes.c_void_p)), ("layer_count", ctypes.c_ssize_t),
        ("cached", ctypes.POINTER(CachedBlock)), ("reads", ctypes.POINTER(SharedReads)),
    )  # fmt: skip


class SessionCounts(ctypes.Structure):
    """`struct session_counts` of serving.h."""

    _fields_ = (
        ("sweeps", ctypes.c_longlong), ("rounds", ctypes.c_longlong), ("received_bytes", ctypes.c_longlong),
        ("sent_bytes", ctypes.c_longlong),
    )  # fmt: skip


class ServedSession(ctypes.Structure):
    """`struct served_session` of serving.h."""

    _fields_ = (
        ("work", ctypes.POINTER(NodeWork)), ("ready", ctypes.POINTER(ReadyBlocks)),
        ("counts", ctypes.POINTER(SessionCounts)), ("writing", ctypes.c_void_p),
        ("must_look", ctypes.POINTER(ctypes.c_int)), ("sequences", ctypes.c_void_p),
        ("sequence_count", ctypes.c_ssize_t), ("row_count", ctypes.c_ssize_t), ("thread_count", ctypes.c_int),
        ("activations", ctypes.c_int), ("sweep_id", ctypes.c_longlong), ("last_call_id", ctypes.c_longlong),
        ("working_on", ctypes.c_longlong),
    )  # fmt: skip


def declare(functions: ctypes.CDLL) -> None:
    """Tell ctypes the functions of serving.c. Raises: AttributeError: one is missing."""
    lock, integer = ctypes.c_void_p, ctypes.c_int
    functions.shardmesh_lock_new.restype = lock
    functions.shardmesh_lock_new.argtypes = []
    for gone in (functions.shardmesh_lock_free, functions.shardmesh_lock_give):
        gone.restype = None
        gone.argtypes = [lock]
    functions.shardmesh_lock_take.restype = integer
    functions.shardmesh_lock_take.argtypes = [lock, integer]
    functions.shardmesh_serve.restype = integer
    functions.shardmesh_serve.argtypes = [
        ctypes.POINTER(ServedSession), ctypes.POINTER(Peer), ctypes.c_void_p, ctypes.c_ssize_t
    ]  # fmt: skip

"""What do Python and C share of the choice of next tokens, as ctypes has it?

Covers: the structure of sampling.h, and what its function takes. Does not cover: loading the library (library.py), who
fills the structure in (coordinator/engine/sampler.py).
"""

from __future__ import annotations

import ctypes


class Choice(ctypes.Structure):
    """`struct choice` of sampling.h, whose fields are explained there."""

    _fields_ = (
        ("number", ctypes.c_double), ("top_p", ctypes.c_double), ("temperature", ctypes.c_float),
        ("min_p", ctypes.c_float), ("repetition", ctypes.c_float), ("presence", ctypes.c_float),
        ("frequency", ctypes.c_float), ("top_k", ctypes.c_ssize_t), ("token_ids", ctypes.c_void_p),
        ("token_count", ctypes.c_ssize_t), ("prompt_count", ctypes.c_ssize_t), ("biased_ids", ctypes.c_void_p),
        ("biases", ctypes.c_void_p), ("bias_count", ctypes.c_ssize_t), ("likeliest_ids", ctypes.c_void_p),
        ("likeliest_count", ctypes.c_ssize_t), ("has_total", ctypes.c_int), ("token_id", ctypes.c_ssize_t),
        ("total", ctypes.c_double), ("highest", ctypes.c_float),
    )  # fmt: skip


def declare(functions: ctypes.CDLL) -> None:
    """Tell ctypes the function of sampling.c. Raises: AttributeError: it is missing."""
    functions.shardmesh_choose_tokens.restype = ctypes.c_int
    functions.shardmesh_choose_tokens.argtypes = [
        ctypes.c_void_p, ctypes.c_ssize_t, ctypes.POINTER(Choice), ctypes.c_ssize_t
    ]  # fmt: skip

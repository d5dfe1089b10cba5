"""The one matrix product of the project: rows times a weight matrix that is stored [in, out], or packed.

Covers: calling our kernels, which read each weight once and in the type it is stored in; how many threads they have;
refusing to compute without them.
Does not cover: where weights come from (weights/), what the product means (tile_products.py,
coordinator/engine/head.py), the kernels themselves (native/), products in torch (torch_backend.py).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import InputError
from common.native.address import address
from common.native.build import TAKE_TORCH, how_to_build
from common.native.library import FLOAT_KINDS, WEIGHT_KINDS, shared
from common.weights.encodings import packed_bytes
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, Stored

kernels = shared()
"""Of our own; replaced by `absent(...)` where tests want none."""
FEW_ROWS = 32
"""Up to so many rows memory is what limits a product; of more, as in a prompt, processors are."""
_KINDS = {NUMPY_DTYPES[name]: kind for kind, name in enumerate(FLOAT_KINDS)}


def require_kernels() -> None:
    """Raises: InputError: there are no kernels here, and nothing else computes on a CPU."""
    if kernels.functions is None:
        remedy = f"install gcc or clang and {how_to_build()}, or {TAKE_TORCH}" if kernels.can_be_built else TAKE_TORCH
        raise InputError(
            f"there are no kernels to compute with on this machine's processor: {kernels.reason}; {remedy}"
        )


@dataclass
class _ThreadCounts:
    many_rows: int = 1
    few_rows: int = 1
    now: int = 1


_thread_counts = _ThreadCounts()


def set_thread_count(thread_count: int, *, few_rows: int | None = None) -> None:
    """Let products have so many threads, the caller's included.

    Args: few_rows: of products of up to FEW_ROWS rows; as many if not given.
    """
    _thread_counts.many_rows = thread_count
    _thread_counts.few_rows = thread_count if few_rows is None else few_rows
    _thread_counts.now = 0
    use_threads_for(1)


def use_threads_for(row_count: int) -> None:
    """Let the next products of this process have the threads that so many rows may have."""
    wanted = _thread_counts.few_rows if row_count <= FEW_ROWS else _thread_counts.many_rows
    if wanted != _thread_counts.now:
        _thread_counts.now = wanted
        kernels.set_thread_count(wanted)


def few_rows_thread_count() -> int:
    """Return how many threads products of few rows are to have."""
    return _thread_counts.few_rows


def use_activations(number: int) -> None:
    """Let products of this thread with weights in GGUF's blocks have rows of float32 (0) or of 8 bits (1)."""
    functions().shardmesh_use_activations(number)


def functions() -> ctypes.CDLL:
    """Return our kernels' functions; only for who has made sure that there are any."""
    assert kernels.functions is not None
    return kernels.functions


def multiply(rows: Floats, weight: Stored) -> Floats:
    """Return rows @ weight, new float32 [row_count, out].

    Args: rows: float32 [row_count, in], any number of them; weight: [in, out] without gaps, as it is stored.
    """
    rows = np.ascontiguousarray(rows)
    row_count, (depth, width) = rows.shape[0], weight.shape
    assert rows.dtype == np.float32
    assert rows.shape[1] == depth
    assert weight.flags.c_contiguous
    product = np.empty((row_count, width), np.float32)
    functions().shardmesh_multiply(
        address(rows), depth, row_count, address(weight), _KINDS[weight.dtype], depth, width, address(product)
    )
    return product


def multiply_packed(rows: Floats, packed: npt.NDArray[np.uint8], encoding: str, depth: int, width: int) -> Floats:
    """Return rows times a packed matrix (common/weights/packed_blocks.py), new float32 [row_count, width].

    Args: rows: float32 [row_count, depth], any number of them; packed: uint8 [packed_bytes] without gaps.
    """
    rows = np.ascontiguousarray(rows)
    assert rows.dtype == np.float32
    assert rows.shape[1] == depth
    assert packed.nbytes == packed_bytes(encoding, depth, width)
    product = np.empty((rows.shape[0], width), np.float32)
    outcome = functions().shardmesh_multiply(
        address(rows), depth, rows.shape[0], address(packed), WEIGHT_KINDS.index(encoding), depth, width,
        address(product),
    )  # fmt: skip
    assert outcome == 0, "the depth is whole blocks"
    return product

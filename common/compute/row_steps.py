"""What rows go through between two blocks: sum of parts, norm; by kernels of our own, once through memory.

Covers: calling them (native/steps.c says what they compute); numpy's way for a machine that has torch and no kernels.
Does not cover: blocks (tile_products.py), what the sums and norms belong to (residual.py,
coordinator/ranks/reduction.py).

All arrays are float32 and without gaps unless something else is said.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from common.compute import matmul
from common.native.address import address, address_or_none
from common.weights.stored_numbers import Floats


def add_parts(parts: Sequence[Floats]) -> tuple[Floats, bool]:
    """Return the sum of arrays of one shape in their order, new, and whether all of it is finite."""
    if matmul.kernels.functions is None:
        return _add_in_numpy(parts)
    total = np.empty(parts[0].shape, np.float32)
    addresses = (ctypes.c_void_p * len(parts))(*[address(part) for part in parts])
    return total, not matmul.functions().shardmesh_add(addresses, 0, len(parts), total.size, address(total))


def add_parts_of_messages(
    messages: Sequence[bytes], first_byte: int, shape: tuple[int, ...]
) -> tuple[Floats, bool] | None:  # fmt: skip
    """Return what `add_parts` does of float32 that lie in messages from a byte on, a multiple of four, to their end.

    Returns: None: they are not of that length, or not such messages, and have to be decoded one by one.
    """
    if matmul.kernels.functions is None:
        return None
    total = np.empty(shape, np.float32)
    length = first_byte + total.nbytes
    if {(type(message), len(message)) for message in messages} != {(bytes, length)}:
        return None
    places = (ctypes.c_char_p * len(messages))(*messages)
    return total, not matmul.functions().shardmesh_add(places, first_byte, len(messages), total.size, address(total))


def add_and_normalize(
    hidden: Floats, addend: Floats | None, weight: Floats, epsilon: float, into: Floats | None = None
) -> Floats:
    """Add `addend` to `hidden` in place; return its rows by their root mean square, times `weight`.

    Args: into: of hidden's shape, to be written and returned; new if not given.
    Source: arXiv:1910.07467.
    """
    normed = np.empty(hidden.shape, np.float32) if into is None else into
    if matmul.kernels.functions is None:
        return _normalize_in_numpy(hidden, addend, weight, epsilon, normed)
    row_count, width = hidden.shape
    matmul.functions().shardmesh_normalize(
        address(hidden), address_or_none(addend), address(weight), row_count, width, epsilon, address(normed)
    )
    return normed


def _add_in_numpy(parts: Sequence[Floats]) -> tuple[Floats, bool]:
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total, bool(np.isfinite(total).all())


def _normalize_in_numpy(
    hidden: Floats, addend: Floats | None, weight: Floats, epsilon: float, normed: Floats
) -> Floats:
    if addend is not None:
        hidden += addend
    mean_squares = np.square(hidden).mean(axis=1, keepdims=True)
    normed[...] = hidden / np.sqrt(mean_squares + np.float32(epsilon)) * weight
    return normed

"""Products of rows in 8 bits with weights in GGUF's blocks, made plainly: what the kernels have to agree with.

Covers: rounding rows, codes and scales out of the gguf package's numbers, the order of sums (common/native/integers.c).
Does not cover: weights' own values (tests/support/encoded_weights.py).
"""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.weights.encodings import ENCODINGS, PIECE_INPUTS
from common.weights.stored_numbers import Floats

ROUNDED = tuple(name for name in ENCODINGS if not name.startswith("iq4"))
"""Encodings that are multiplied with rows in 8 bits."""
HALF, DEPTH_RANGES = PIECE_INPUTS // 2, 4
LEAST = np.float32(2.0**-100)
"""A piece whose largest number is below is all zeros."""
Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Weights(NamedTuple):
    """What a weight is made of: scale * code + more; the last two for each 16 or 32 inputs."""

    codes: Numbers  # [output, input]
    scales: Floats  # [output, piece]
    mores: Floats | None  # [output, piece]


def rounded(rows: Floats) -> tuple[Numbers, Floats]:
    """Return numbers [row, input] and scales [row, piece of 32]."""
    pieces = rows.reshape(len(rows), -1, PIECE_INPUTS)
    sizes = np.abs(pieces).max(axis=-1)
    sizes[sizes < LEAST] = 0
    factors = np.divide(np.float32(127), sizes, out=np.zeros_like(sizes), where=sizes > 0)
    numbers = np.rint(pieces * factors[..., None]).astype(np.int64)
    return numbers.reshape(rows.shape), sizes / np.float32(127)


def expected_product(encoding: str, rows: Floats, blocks: Bytes) -> Floats:
    """Return float32 [row, output]. Args: blocks: uint8 [output, row_bytes], as a file has them."""
    weights = weights_of(encoding, blocks)
    numbers, row_scales = rounded(rows)
    inputs = weights.codes.shape[1] // weights.scales.shape[1]
    products = weights.codes[None] * numbers[:, None]
    dots = products.reshape(*products.shape[:2], -1, inputs).sum(axis=-1).astype(np.float32)
    sums = numbers.reshape(len(rows), -1, inputs).sum(axis=-1).astype(np.float32)
    scale_of = np.repeat(row_scales, PIECE_INPUTS // inputs, axis=1)
    scaled_sums = sums * scale_of
    total = np.zeros((len(rows), len(blocks)), np.float32)
    pieces, per = row_scales.shape[1], PIECE_INPUTS // inputs
    starts = [pieces // DEPTH_RANGES * number for number in range(DEPTH_RANGES)] + [pieces]
    for number, (start, stop) in enumerate(pairwise(starts)):
        chain = np.zeros_like(total)
        for piece in range(start, stop):
            own = range(piece * per, (piece + 1) * per)
            for part in own:
                chain = fused(weights.scales[:, part] * scale_of[:, part, None], dots[:, :, part], chain)
            if weights.mores is not None:
                for part in own:
                    chain = fused(scaled_sums[:, part, None], weights.mores[:, part], chain)
        total = total + chain if number else chain
    return total


def fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """Return a * b + c, rounded once."""
    libm = ctypes.CDLL(None)
    libm.fmaf.restype, libm.fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    a, b, c = np.broadcast_arrays(a, b, c)
    made = [libm.fmaf(*map(float, numbers)) for numbers in zip(a.flat, b.flat, c.flat, strict=True)]
    return np.array(made, np.float32).reshape(c.shape)


def weights_of(encoding: str, blocks: Bytes) -> Weights:
    """Take a file's blocks apart, as the format's own description does it. Codes without what is taken away of all."""
    size = ENCODINGS[encoding]
    own = blocks.reshape(len(blocks), -1, size.block_bytes)
    scales, mores = _scales(encoding, own)
    codes = _codes(encoding, own) - {"q4_0": 8, "q5_0": 16, "q3_k": 4, "q6_k": 32}.get(encoding, 0)
    flat = len(blocks), -1
    return Weights(codes.reshape(flat), scales.reshape(flat), None if mores is None else mores.reshape(flat))


def _halves(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(data: Bytes, group: int) -> Numbers:
    """Return [..., 2 * bytes]: of each `group` bytes the lower halves, then the higher ones."""
    parts = data.reshape(*data.shape[:-1], -1, 1, group)
    return np.concatenate([parts & 15, parts >> 4], axis=-2).reshape(*data.shape[:-1], -1).astype(np.int64)


def _bits(data: Bytes, bits: int, group: int) -> Numbers:
    """Return [..., 8 / bits * bytes]: of each `group` bytes their lowest bits, then the next ones, and on."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = data.reshape(*data.shape[:-1], -1, 1, group) >> shifts & (1 << bits) - 1
    return parts.reshape(*data.shape[:-1], -1).astype(np.int64)


def _codes(encoding: str, own: Bytes) -> Numbers:
    if encoding == "q8_0":
        return own[..., 2:].view(np.int8).astype(np.int64)
    if encoding in ("q4_0", "q4_1"):
        return _nibbles(own[..., own.shape[-1] - 16 :], 16)
    if encoding in ("q5_0", "q5_1"):
        high = np.unpackbits(own[..., -20:-16], axis=-1, bitorder="little").astype(np.int64)
        return _nibbles(own[..., -16:], 16) + 16 * high
    if encoding == "q2_k":
        return _bits(own[..., 16:80], 2, 32)
    if encoding == "q3_k":
        return _bits(own[..., 32:96], 2, 32) + 4 * _bits(own[..., :32], 1, 32)
    if encoding == "q6_k":
        low = _nibbles(own[..., :128], 64)
        return low + 16 * _bits(own[..., 128:192], 2, 32)
    codes = _nibbles(own[..., -128:], 32)
    return codes if encoding == "q4_k" else codes + 16 * _bits(own[..., 16:48], 1, 32)


def _scales(encoding: str, own: Bytes) -> tuple[Floats, Floats | None]:
    """Return scales and what is added, [output, block, part of a block]."""
    if not encoding.endswith("_k"):
        return _halves(own, 0), _halves(own, 2) if encoding in ("q4_1", "q5_1") else None
    if encoding == "q2_k":
        d, least = _halves(own, 80), _halves(own, 82)
        return d * (own[..., :16] & 15).astype(np.float32), -least * (own[..., :16] >> 4).astype(np.float32)
    if encoding == "q6_k":
        return _halves(own, 208) * own[..., 192:208].view(np.int8).astype(np.float32), None
    if encoding == "q3_k":
        low = _nibbles(own[..., 96:104], 8)
        high = _bits(own[..., 104:108], 2, 4)
        return _halves(own, 108) * (low + 16 * high - 32).astype(np.float32), None
    six = own[..., 4:16].astype(np.int64)
    first, second, third = six[..., :4], six[..., 4:8], six[..., 8:]
    scale = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=-1)
    more = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=-1)
    return _halves(own, 0) * scale.astype(np.float32), -_halves(own, 2) * more.astype(np.float32)

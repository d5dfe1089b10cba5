"""Cosine and sine tables of the rotary position embedding, built where they are used, never sent.

Covers: the inverse frequencies of every rope type in common/model/model_spec.py, tables for given rows.
Does not cover: whose rows those are (row_tables.py), applying them to queries and keys (common/native/steps.c,
common/compute/torch_backend.py).
Source: arXiv:2104.09864 (rotary); arXiv:2309.00071 sections 3.1-3.4 (linear, NTK-aware, YaRN);
Llama 3.1 (llama3). Computed in float32 in the order in which transformers computes, so that both agree; powers, cosines
and sines are looked for in float64 and rounded, which gives the same on every processor, and most often what torch has.
"""

from __future__ import annotations

import math

import numpy as np

from common.model.model_spec import RopeSpec
from common.weights.stored_numbers import Floats


class Rotary:
    """Tables for one model. Keeps the inverse frequencies; `dynamic` ones are made anew when the context grows."""

    def __init__(self, rope: RopeSpec, head_size: int) -> None:
        self._rope = rope
        self._head_size = head_size
        self._fixed = None if rope.rope_type == "dynamic" else inverse_frequencies(rope, head_size, 0)

    @property
    def is_fixed(self) -> bool:
        """Whether a position's table depends on nothing but the position."""
        return self._fixed is not None

    def tables(self, first_position: int, row_count: int, rotary_length: int) -> tuple[Floats, Floats]:
        """Return cosine and sine for neighbouring rows, each float32 [row_count, head_size] without gaps.

        The first half of each row of sines is negated, as who turns queries and keys wants them.
        Args: rotary_length: context length in tokens; only `dynamic` looks at it.
        """
        frequencies = self._fixed
        if frequencies is None:
            frequencies = inverse_frequencies(self._rope, self._head_size, rotary_length)
        positions = np.arange(first_position, first_position + row_count, dtype=np.float32)
        angles = positions[:, None] * frequencies
        factor = np.float32(self._rope.attention_factor)
        exact = angles.astype(np.float64)
        cosine, sine = np.cos(exact).astype(np.float32) * factor, np.sin(exact).astype(np.float32) * factor
        return np.concatenate((cosine, cosine), axis=1), np.concatenate((-sine, sine), axis=1)


def inverse_frequencies(rope: RopeSpec, head_size: int, rotary_length: int) -> Floats:
    """Return the rotary frequencies, float32 [head_size / 2], in radians per position.

    Args: rotary_length: context length in tokens; only `dynamic` looks at it.
    """
    exponents = np.arange(0, head_size, 2).astype(np.float32) / np.float32(head_size)
    theta = rope.theta
    if rope.rope_type == "dynamic":
        length = max(rotary_length, rope.original_position_count)
        stretch = rope.factor * length / rope.original_position_count - (rope.factor - 1)
        theta *= stretch ** (head_size / (head_size - 2))
    base = np.full(exponents.shape, np.float32(theta), np.float64)
    wavelengths = np.power(base, exponents).astype(np.float32)
    frequencies: Floats = np.reciprocal(wavelengths)
    if rope.rope_type == "linear":
        frequencies /= np.float32(rope.factor)
    elif rope.rope_type == "yarn":
        frequencies = _yarn(rope, head_size, wavelengths)
    elif rope.rope_type == "llama3":
        frequencies = _llama3(rope, frequencies)
    elif rope.rope_type == "factors":
        divisors: Floats = np.array(rope.frequency_factors, np.float32)
        frequencies = frequencies / divisors
    return frequencies


def _yarn(rope: RopeSpec, head_size: int, wavelengths: Floats) -> Floats:
    """Interpolate slow dimensions, keep fast ones, blend in between (arXiv:2309.00071, section 3.2)."""

    def dimension_of(rotations: float) -> float:
        span = rope.original_position_count / (rotations * 2 * math.pi)
        return head_size * math.log(span) / (2 * math.log(rope.theta))

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_size - 1)
    if low == high:
        high += 0.001
    places = np.arange(head_size // 2, dtype=np.float32)
    kept = 1 - ((places - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    blended: Floats = 1 / (np.float32(rope.factor) * wavelengths) * (1 - kept) + 1 / wavelengths * kept
    return blended


def _llama3(rope: RopeSpec, frequencies: Floats) -> Floats:
    """Stretch wavelengths longer than the trained context, keep short ones, blend in between."""
    low_wavelength = rope.original_position_count / rope.low_freq_factor
    high_wavelength = rope.original_position_count / rope.high_freq_factor
    factor = np.float32(rope.factor)
    # torch divides a number by a tensor as the number times the reciprocal: another last bit.
    wavelengths = np.reciprocal(frequencies) * np.float32(2 * math.pi)
    stretched = np.where(wavelengths > low_wavelength, frequencies / factor, frequencies)
    blend = (
        np.reciprocal(wavelengths) * np.float32(rope.original_position_count) - np.float32(rope.low_freq_factor)
    ) / np.float32(rope.high_freq_factor - rope.low_freq_factor)
    smooth = (1 - blend) * stretched / factor + blend * stretched
    is_medium = ~(wavelengths < high_wavelength) & ~(wavelengths > low_wavelength)
    return np.where(is_medium, smooth, stretched)

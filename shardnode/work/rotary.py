"""Cosine and sine tables of the rotary position embedding, built where they are used, never sent.

Covers: the inverse frequencies of every rope type in common/model/model_spec.py, tables for given rows.
Does not cover: applying them to queries and keys (kernels.py).
Source: arXiv:2104.09864 (rotary); arXiv:2309.00071 sections 3.1-3.4 (linear, NTK-aware, YaRN);
Llama 3.1 (llama3). Computed in float32 in the order in which transformers computes, so that both agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from common.model.model_spec import RopeSpec


class Rotary:
    """Tables for one model. Keeps the inverse frequencies; `dynamic` ones are made anew when the context grows."""

    def __init__(self, rope: RopeSpec, head_size: int, device: torch.device) -> None:
        self._rope = rope
        self._head_size = head_size
        self._device = device
        self._fixed = None if rope.rope_type == "dynamic" else self._frequencies(0)

    @property
    def is_fixed(self) -> bool:
        """Whether a position's table depends on nothing but the position."""
        return self._fixed is not None

    def tables(self, runs: Sequence[tuple[int, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosine and sine, each float32 [row_count, 1, head_size], for runs of rows.

        Args: runs: (first position, row count, rotary length) of each run, in row order.
        """
        parts = []
        for first_position, row_count, rotary_length in runs:
            positions = torch.arange(first_position, first_position + row_count, device=self._device).float()
            frequencies = self._frequencies(rotary_length) if self._fixed is None else self._fixed
            parts.append(positions[:, None] * frequencies)
        angles = parts[0] if len(parts) == 1 else torch.cat(parts)
        angles = torch.cat((angles, angles), dim=-1)[:, None, :]
        factor = self._rope.attention_factor
        cosine, sine = angles.cos(), angles.sin()
        return (cosine, sine) if factor == 1.0 else (cosine * factor, sine * factor)

    def _frequencies(self, rotary_length: int) -> torch.Tensor:
        frequencies = inverse_frequencies(self._rope, self._head_size, rotary_length)
        return frequencies.to(self._device)


def inverse_frequencies(rope: RopeSpec, head_size: int, rotary_length: int) -> torch.Tensor:
    """Return the rotary frequencies, float32 [head_size / 2], in radians per position.

    Args: rotary_length: context length in tokens; only `dynamic` looks at it.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    theta = rope.theta
    if rope.rope_type == "dynamic":
        length = max(rotary_length, rope.original_position_count)
        stretch = rope.factor * length / rope.original_position_count - (rope.factor - 1)
        theta = theta * stretch ** (head_size / (head_size - 2))
    frequencies: torch.Tensor = 1.0 / theta**exponents
    if rope.rope_type == "linear":
        frequencies /= rope.factor
    elif rope.rope_type == "yarn":
        frequencies = _yarn(rope, head_size, theta**exponents)
    elif rope.rope_type == "llama3":
        frequencies = _llama3(rope, frequencies)
    elif rope.rope_type == "factors":
        frequencies = frequencies / torch.tensor(rope.frequency_factors, dtype=torch.float32)
    return frequencies


def _yarn(rope: RopeSpec, head_size: int, wavelengths: torch.Tensor) -> torch.Tensor:
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
    ramp = ((torch.arange(head_size // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    kept = 1 - ramp
    return 1.0 / (rope.factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept


def _llama3(rope: RopeSpec, frequencies: torch.Tensor) -> torch.Tensor:
    """Stretch wavelengths longer than the trained context, keep short ones, blend in between."""
    low_wavelength = rope.original_position_count / rope.low_freq_factor
    high_wavelength = rope.original_position_count / rope.high_freq_factor
    wavelengths = 2 * math.pi / frequencies
    stretched = torch.where(wavelengths > low_wavelength, frequencies / rope.factor, frequencies)
    blend = (rope.original_position_count / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    smooth = (1 - blend) * stretched / rope.factor + blend * stretched
    is_medium = ~(wavelengths < high_wavelength) & ~(wavelengths > low_wavelength)
    return torch.where(is_medium, smooth, stretched)

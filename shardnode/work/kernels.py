"""The maths of one tile: pure torch functions over weights, rows and cached keys and values.

Covers: attention projections, per-head norms, rotary embedding, grouped-query attention with
causal and sliding-window masks, gated feed-forward.
Does not cover: which tile, where it comes from (executor.py), tables of cosine and sine (rotary.py).
Everything is computed in float32, from weights as they are stored. Source: arXiv:1706.03762, arXiv:2305.13245
(grouped queries), arXiv:2002.05202 (gated feed-forward), arXiv:1909.08053 section 3 (row- and column-parallel halves).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from common.compute.matmul import multiply

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda rows: functional.gelu(rows, approximate="tanh"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionWeights:
    """One attention tile: matrices as stored, vectors float32.

    `query_count` query heads read `kv_count` KV heads, equally many each.
    """

    qkv: torch.Tensor
    """[hidden_size, (query_count + 2 * kv_count) * head_size]: queries, keys, values."""
    output: torch.Tensor
    """[query_count * head_size, hidden_size]."""
    qkv_bias: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    query_count: int
    kv_count: int
    head_size: int
    norm_epsilon: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FfnWeights:
    """One FFN tile, as stored: `gate_up` [hidden_size, 2 * columns], `down` [columns, hidden_size]."""

    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    activation: str


def signed(sine: torch.Tensor) -> torch.Tensor:
    """Return a sine table as project_heads wants it: the first half of each head's negated."""
    first, second = sine.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


def project_heads(
    rows: torch.Tensor, weights: AttentionWeights, cosine: torch.Tensor, sine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values of a tile's heads, queries and keys rotated.

    Args: rows: [row_count, hidden_size]; cosine, sine: [row_count, 1, head_size], the sine `signed`.
    Returns: [row_count, query_count, head_size], and twice [row_count, kv_count, head_size].
    """
    projected = multiply(rows, weights.qkv)
    if weights.qkv_bias is not None:
        projected += weights.qkv_bias
    heads = projected.view(rows.shape[0], -1, weights.head_size)
    rotated_count = weights.query_count + weights.kv_count
    turned, values = heads[:, :rotated_count], heads[:, rotated_count:]
    if weights.query_norm is not None:
        size, epsilon = (weights.head_size,), weights.norm_epsilon
        queries = functional.rms_norm(turned[:, : weights.query_count], size, weights.query_norm, epsilon)
        keys = functional.rms_norm(turned[:, weights.query_count :], size, weights.key_norm, epsilon)
        turned = torch.cat((queries, keys), dim=1)
    turned = torch.addcmul(turned * cosine, turned.roll(weights.head_size // 2, dims=-1), sine)
    return turned[:, : weights.query_count], turned[:, weights.query_count :], values


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, first_position: int, sliding_window: int
) -> torch.Tensor:
    """Return softmax(queries keys^T / sqrt(head_size)) values of one sequence, causal.

    Args: queries: [row_count, query_count, head_size], at positions first_position onwards;
    keys, values: [kv_count, length, head_size], positions 0 onwards; sliding_window: 0 for none.
    Returns: [row_count, query_count * head_size].
    """
    row_count = queries.shape[0]
    length = keys.shape[1]
    if sliding_window:
        start = max(0, first_position + 1 - sliding_window)
        keys, values = keys[:, start:], values[:, start:]
    else:
        start = 0
    if row_count == 1:
        # The query heads of one KV head are rows of one matrix: nothing is masked, and no key is copied for each.
        grouped = queries.reshape(1, keys.shape[0], -1, queries.shape[2])
        context = functional.scaled_dot_product_attention(grouped, keys.unsqueeze(0), values.unsqueeze(0))
        return context.reshape(1, -1)
    # A prompt's first chunk that no window cuts: torch skips what lies above the diagonal, and no mask is built.
    is_square = first_position == 0 and (not sliding_window or row_count <= sliding_window)
    mask = None
    if not is_square:
        mask = causal_mask(first_position, row_count, start, length, sliding_window, queries.device)
    context = functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, is_causal=is_square, enable_gqa=True
    )
    return context[0].transpose(0, 1).reshape(row_count, -1)


def causal_mask(
    first_position: int, row_count: int, start: int, length: int, sliding_window: int, device: torch.device
) -> torch.Tensor:
    """Return which of positions start..length each row sees: bool [row_count, length - start]."""
    rows = torch.arange(first_position, first_position + row_count, device=device)[:, None]
    columns = torch.arange(start, length, device=device)[None, :]
    mask = columns <= rows
    if sliding_window:
        mask &= columns > rows - sliding_window
    return mask


def feed_forward(rows: torch.Tensor, weights: FfnWeights) -> torch.Tensor:
    """Return a tile's part of down(activation(gate(rows)) * up(rows)): [row_count, hidden_size]."""
    both = multiply(rows, weights.gate_up)
    if weights.gate_up_bias is not None:
        both += weights.gate_up_bias
    gate, up = both.chunk(2, dim=-1)
    return multiply(ACTIVATIONS[weights.activation](gate).mul_(up), weights.down)

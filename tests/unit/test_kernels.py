"""Do the kernels compute the plain formulas of attention and feed-forward?

Covers: shardnode/work/kernels.py against loops in float64 that follow the papers' formulas one index at a time.
Does not cover: whole models (tests/golden, tests/e2e).
"""

from __future__ import annotations

import math

import pytest
import torch

from common.model.model_spec import ACTIVATIONS
from shardnode.work import kernels
from shardnode.work.kernels import AttentionWeights, FfnWeights, attend, causal_mask, feed_forward, project_heads

HIDDEN, HEAD = 12, 8


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return float32 noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention_weights(query_count: int, kv_count: int, *, bias: bool = False, norm: bool = False) -> AttentionWeights:
    """Return a random tile."""
    width = (query_count + 2 * kv_count) * HEAD
    return AttentionWeights(
        qkv=random(HIDDEN, width, seed=1), output=random(query_count * HEAD, HIDDEN, seed=2),
        qkv_bias=random(width, seed=3) if bias else None,
        query_norm=1 + random(HEAD, seed=4) if norm else None, key_norm=1 + random(HEAD, seed=5) if norm else None,
        query_count=query_count, kv_count=kv_count, head_size=HEAD, norm_epsilon=1e-3,
    )  # fmt: skip


def plain_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, first_position: int, window: int
) -> torch.Tensor:
    """Return softmax(q k / sqrt(d)) v, one head and row at a time, in float64; `window` 0 shows all positions."""
    row_count, query_count, size = queries.shape
    group = query_count // keys.shape[0]
    context = torch.zeros(row_count, query_count, size, dtype=torch.float64)
    for row in range(row_count):
        position = first_position + row
        first_seen = max(0, position - window + 1) if window else 0
        for head in range(query_count):
            seen_keys = keys[head // group, first_seen : position + 1].double()
            seen_values = values[head // group, first_seen : position + 1].double()
            weights = torch.softmax(seen_keys @ queries[row, head].double() / math.sqrt(size), dim=0)
            context[row, head] = weights @ seen_values
    return context.view(row_count, -1).float()


@pytest.mark.parametrize("window", [0, 1, 3, 5, 8, 100])
@pytest.mark.parametrize(("first_position", "row_count"), [(0, 1), (0, 6), (5, 1), (5, 4), (9, 1)])
@pytest.mark.parametrize(("query_count", "kv_count"), [(1, 1), (4, 4), (6, 2), (3, 1)])
def test_attention_is_the_plain_formula(
    query_count: int, kv_count: int, first_position: int, row_count: int, window: int
) -> None:
    """Causal, grouped, with any sliding window, prefill from the start or later, and single decode steps."""
    length = first_position + row_count
    queries = random(row_count, query_count, HEAD, seed=6)
    keys, values = random(kv_count, length, HEAD, seed=7), random(kv_count, length, HEAD, seed=8)
    context = attend(queries, keys, values, first_position, window)
    assert context.shape == (row_count, query_count * HEAD)
    torch.testing.assert_close(
        context, plain_attention(queries, keys, values, first_position, window), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("window", [0, 2])
def test_attention_sees_neither_the_future_nor_what_slid_out(window: int) -> None:
    """Numbers that are not finite, where a row must not look, change nothing."""
    queries, keys, values = random(1, 2, HEAD), random(1, 5, HEAD, seed=1), random(1, 5, HEAD, seed=2)
    expected = attend(queries, keys, values, 4, window)
    if window:
        keys[:, :3] = values[:, :3] = math.nan
    assert torch.equal(attend(queries, keys, values, 4, window), expected)


@pytest.mark.parametrize("window", [0, 1, 3])
def test_a_mask_is_true_where_a_row_may_look(window: int) -> None:
    """Column c of row r: c <= r, and within the window that ends at r."""
    mask = causal_mask(4, 3, 2, 7, window, torch.device("cpu"))
    assert mask.shape == (3, 5)
    for row in range(3):
        for column in range(5):
            position, seen = 4 + row, 2 + column
            assert mask[row, column].item() == (seen <= position and (not window or seen > position - window))


def plain_rotation(head: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + half) of one head by their angle."""
    half = head.shape[0] // 2
    turned = head.clone()
    for i in range(half):
        turned[i] = head[i] * cosine[i] - head[i + half] * sine[i]
        turned[i + half] = head[i + half] * cosine[i + half] + head[i] * sine[i + half]
    return turned


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("query_count", "kv_count"), [(1, 1), (4, 2), (3, 1)])
def test_projections_are_the_plain_formula(query_count: int, kv_count: int, norm: bool, bias: bool) -> None:
    """Each head: rows x matrix + bias, then (queries and keys only) RMS norm per head, then the rotation."""
    weights = attention_weights(query_count, kv_count, bias=bias, norm=norm)
    rows, angles = random(3, HIDDEN, seed=9), random(3, 1, HEAD // 2, seed=10)
    angles = torch.cat((angles, angles), dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    queries, keys, values = project_heads(rows, weights, cosine, kernels.signed(sine))
    assert queries.shape == (3, query_count, HEAD)
    assert keys.shape == values.shape == (3, kv_count, HEAD)
    projected = torch.einsum("rh,hw->rw", rows.double(), weights.qkv.double()).float()
    if weights.qkv_bias is not None:
        projected = projected + weights.qkv_bias
    found = torch.cat((queries, keys, values), dim=1)
    for row in range(3):
        for index in range(query_count + 2 * kv_count):
            head = projected[row, index * HEAD : (index + 1) * HEAD]
            is_query, is_value = index < query_count, index >= query_count + kv_count
            scale = weights.query_norm if is_query else weights.key_norm
            if scale is not None and not is_value:
                head = head / math.sqrt(head.square().mean().item() + weights.norm_epsilon) * scale
            if not is_value:
                head = plain_rotation(head, cosine[row, 0], sine[row, 0])
            torch.testing.assert_close(found[row, index], head, atol=1e-5, rtol=1e-4)


PLAIN_ACTIVATIONS = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_is_the_plain_formula(activation: str, bias: bool) -> None:
    """down(activation(gate) * up), gate and up being the halves of one matrix."""
    columns = 5
    weights = FfnWeights(
        gate_up=random(HIDDEN, 2 * columns, seed=11), down=random(columns, HIDDEN, seed=12), activation=activation,
        gate_up_bias=random(2 * columns, seed=13) if bias else None,
    )  # fmt: skip
    rows = random(3, HIDDEN, seed=14)
    both = rows.double() @ weights.gate_up.double()
    if weights.gate_up_bias is not None:
        both = both + weights.gate_up_bias.double()
    inner = torch.tensor([
        [PLAIN_ACTIVATIONS[activation](row[i].item()) * row[columns + i].item() for i in range(columns)] for row in both
    ], dtype=torch.float64)  # fmt: skip
    expected = (inner @ weights.down.double()).float()
    torch.testing.assert_close(feed_forward(rows, weights), expected, atol=1e-4, rtol=1e-4)


def test_every_activation_of_a_spec_has_a_kernel() -> None:
    """What common/model/model_spec.py lets through can be computed."""
    assert set(kernels.ACTIVATIONS) == set(ACTIVATIONS)


def test_kernels_leave_rows_and_weights_as_they_were() -> None:
    """The same rows go through every tile of a block, and weights lie in the window."""
    rows = random(2, HIDDEN)
    attention = attention_weights(2, 1, bias=True, norm=True)
    ffn = FfnWeights(gate_up=random(HIDDEN, 8), gate_up_bias=random(8), down=random(4, HIDDEN), activation="silu")
    tensors = [rows, attention.qkv, attention.qkv_bias, ffn.gate_up, ffn.gate_up_bias, ffn.down]
    copies = [tensor.clone() for tensor in tensors if tensor is not None]
    project_heads(rows, attention, torch.ones(2, 1, HEAD), torch.zeros(2, 1, HEAD))
    feed_forward(rows, ffn)
    assert all(torch.equal(a, b) for a, b in zip((t for t in tensors if t is not None), copies, strict=True))

"""Hypothesis strategies for model specs and split strategies, small enough to compute with.

Does not cover: weights (random_models.py).
"""

from __future__ import annotations

from hypothesis import strategies as st

from common.model.model_spec import ModelSpec, RopeSpec


@st.composite
def model_specs(draw: st.DrawFn, *, most_ffn: int = 400) -> ModelSpec:
    """Return any Llama-shaped model: group sizes from 1 to 6, odd FFN widths, every optional tensor."""
    kv_heads = draw(st.integers(1, 6))
    group = draw(st.integers(1, 6))
    return ModelSpec(
        family="llama",
        hidden_size=draw(st.integers(1, 40)),
        layer_count=draw(st.integers(1, 3)),
        query_head_count=kv_heads * group,
        kv_head_count=kv_heads,
        head_size=2 * draw(st.integers(1, 8)),
        ffn_size=draw(st.integers(1, most_ffn)),
        vocab_size=draw(st.integers(1, 200)),
        max_position_count=64,
        norm_epsilon=1e-5,
        rope=RopeSpec(),
        qkv_bias=draw(st.booleans()),
        output_bias=draw(st.booleans()),
        ffn_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
    )


@st.composite
def split_strategies(draw: st.DrawFn, *, most_nodes: int = 12) -> tuple[str, int]:
    """Return a `--split-strategy` and its world size."""
    ratios = draw(st.lists(st.floats(0.05, 20) | st.integers(1, 9), min_size=1, max_size=most_nodes))
    if draw(st.booleans()):
        return "uniform", len(ratios)
    return "ratio:" + ",".join(f"{ratio:g}" for ratio in ratios), len(ratios)

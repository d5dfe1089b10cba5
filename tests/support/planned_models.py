"""A model of a billion parameters as plans see it: numbers, no weights."""

from __future__ import annotations

from common.model.model_spec import ModelSpec, RopeSpec
from common.model.plan import make_plan
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription

SPEC = ModelSpec(
    family="llama", hidden_size=2048, layer_count=16, query_head_count=32, kv_head_count=8, head_size=64,
    ffn_size=8192, vocab_size=32000, max_position_count=4096, norm_epsilon=1e-5, rope=RopeSpec(),
)  # fmt: skip
DESCRIPTION = SliceDescription(
    model_identity="m", spec=SPEC, plan=make_plan(SPEC, "uniform", 1), rank=COORDINATOR_RANK, dtype="float16",
    tile_bytes=8 << 20,
)  # fmt: skip

"""Are sizes that are possible one by one, and not together, refused before anything is built of them?

Covers: common/model/size_limits.py as a config and a slice's description meet it. Does not cover: each size by itself
(test_families.py), files too short for their tensors (test_checkpoints_hostile.py).
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from common.errors import InputError, UnsupportedModel
from common.model.model_spec import ModelSpec
from common.model.plan import make_plan
from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.model_config import spec_from_config

LARGEST = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
    "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 256_000, "max_position_embeddings": 131_072,
}  # fmt: skip
"""Of 405 billion parameters, with a vocabulary twice its own."""
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "heads": {"num_attention_heads": 1 << 24, "num_key_value_heads": 1 << 24, "head_dim": 2},
    "KV heads": {"num_attention_heads": 1 << 13, "num_key_value_heads": 1 << 13, "head_dim": 128},
    "rows": {"num_attention_heads": 4096, "head_dim": 1 << 16},
    "a matrix": {"hidden_size": 1 << 20, "head_dim": 128, "vocab_size": 1 << 24},
    "all layers": {"num_hidden_layers": 4096, "hidden_size": 1 << 17, "head_dim": 128, "intermediate_size": 1 << 19},
}
SECONDS = 2.0
"""A hundred times what it takes."""


def spec_of(**changes: Any) -> ModelSpec:
    """Return the largest model with other sizes."""
    return spec_from_config(LARGEST | changes)


def test_the_largest_models_are_possible() -> None:
    """And their slices are described in a moment."""
    spec = spec_of()
    one = SliceDescription(model_identity="x", spec=spec, plan=make_plan(spec, "uniform", 8), rank=0,
                           dtype="float16", tile_bytes=8 << 20)  # fmt: skip
    assert SliceDescription.from_json(one.to_json()) == one


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_config_of_sizes_that_are_too_much_together_is_refused_at_once(name: str) -> None:
    """A config of 1 kB took 25 s and 1.7 GB."""
    began = time.process_time()
    with pytest.raises(UnsupportedModel, match="at most"):
        spec_of(**IMPOSSIBLE[name])
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("tile_bytes", [4096, 1 << 16])
def test_a_description_of_too_many_tiles_is_refused_at_once(tile_bytes: int) -> None:
    """Whoever sends 982 bytes has a node lay out no more than a real model has."""
    spec = spec_of()
    value = SliceDescription(model_identity="x", spec=spec, plan=make_plan(spec, "uniform", 1), rank=0,
                             dtype="float32", tile_bytes=8 << 20).to_json()  # fmt: skip
    began = time.process_time()
    with pytest.raises(InputError, match="tiles"):
        SliceDescription.from_json(value | {"tile_bytes": tile_bytes})
    assert time.process_time() - began < SECONDS

"""Which matrix of a model that is quantized for its slices gets how many bits?"""

from __future__ import annotations

from common.model.model_spec import ModelSpec
from common.weights.encodings import grain
from common.weights.model_encodings import (
    AS_THE_FILE,
    ENCODED_DTYPES,
    MATRICES,
    LayerEncodings,
    ModelEncodings,
    inputs_of,
)

KEEP_EIGHT = ("value", "embedding", "head")
"""Matrices of eight bits where the others have four."""
QUANTIZED_DTYPES = tuple(name for name in ENCODED_DTYPES if name != AS_THE_FILE)


def quantized_encodings(spec: ModelSpec, dtype: str, plain: str) -> ModelEncodings:
    """Return what a model's matrices become. Args: plain: of those whose rows are no whole blocks."""

    def encoding(matrix: str) -> str:
        wanted = "q8_0" if matrix in KEEP_EIGHT else dtype
        return plain if inputs_of(spec, matrix) % grain(wanted) else wanted

    layer = LayerEncodings(**{name: encoding(name) for name in MATRICES})
    return ModelEncodings(
        layers=(layer,) * spec.layer_count, embedding=encoding("embedding"), head=encoding("head")
    )  # fmt: skip

"""A model's shape without its weights: enough to plan with, before a byte of it was downloaded.

Covers: a directory with config.json alone, or whatever open_checkpoint takes. Does not cover: plans (strategies.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError
from common.model.model_spec import ModelSpec
from common.model.plan import make_plan
from common.weights.encoded_format import DEFAULT_CELL_BYTES
from common.weights.model_encodings import AS_THE_FILE, ENCODED_DTYPES, ModelEncodings
from common.weights.quantizing import QUANTIZED_DTYPES, quantized_encodings
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from common.weights.slice_format import DEFAULT_TILE_BYTES, ITEM_BYTES, check_storage
from coordinator.checkpoints.config_values import read_json_object
from coordinator.checkpoints.gguf_place import only_gguf
from coordinator.checkpoints.model_config import spec_from_config
from coordinator.checkpoints.weight_files import has_weight_files

if TYPE_CHECKING:  # numpy comes with it, which a config.json alone has no use for
    from coordinator.checkpoints.checkpoint import Checkpoint

NO_IDENTITY = "not known before the weights are"


@dataclass(frozen=True, kw_only=True)
class ModelOutline:
    """What plans need to know of a model."""

    spec: ModelSpec
    dtype: str
    """That its matrices are stored in, as numbers: float32 of a quantized one."""
    encodings: ModelEncodings | None = None
    """Of a file whose blocks slices can keep."""
    identity: str = NO_IDENTITY

    def description(self, dtype: str | None = None) -> SliceDescription:
        """Return the coordinator's own slice, of a plan for one node, to be replaced. Args: dtype: if another one.

        Raises: InputError: weights cannot be stored so.
        """
        wanted = dtype or (self.dtype if self.encodings is None else AS_THE_FILE)
        encodings = self._encodings_of(wanted)
        if encodings is None:
            check_storage(wanted, DEFAULT_TILE_BYTES)
        return SliceDescription(
            model_identity=self.identity, spec=self.spec, plan=make_plan(self.spec, "uniform", 1),
            rank=COORDINATOR_RANK, dtype=wanted, encodings=encodings,
            tile_bytes=DEFAULT_TILE_BYTES if encodings is None else DEFAULT_CELL_BYTES,
        )  # fmt: skip

    def _encodings_of(self, dtype: str) -> ModelEncodings | None:
        if dtype not in ENCODED_DTYPES:
            return None
        if dtype != AS_THE_FILE:
            return quantized_encodings(self.spec, dtype, self.dtype)
        if self.encodings is None:
            raise InputError(f"--weights-dtype {AS_THE_FILE} keeps the blocks of a GGUF file, and this model has none "
                             f"that can be kept; use {', '.join(QUANTIZED_DTYPES)} to quantize it")  # fmt: skip
        return self.encodings


def outline(checkpoint: Checkpoint) -> ModelOutline:
    """Return the outline of a model whose weights are there."""
    return ModelOutline(
        spec=checkpoint.spec, dtype=checkpoint.dtype, identity=checkpoint.identity, encodings=checkpoint.encodings
    )  # fmt: skip


def outline_of(model: Path) -> ModelOutline:
    """Return a model's outline. Raises: ModelError and its kinds: there is none, or it is not supported."""
    config = model / "config.json"
    if os.path.isfile(config) and not has_weight_files(model) and only_gguf(model) is None:
        values = read_json_object(config)
        dtype = str(values.get("dtype") or values.get("torch_dtype") or "float32")
        return ModelOutline(spec=spec_from_config(values), dtype=dtype if dtype in ITEM_BYTES else "float32")
    from coordinator.checkpoints.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(model)
    try:
        return outline(checkpoint)
    finally:
        checkpoint.close()

"""What a slice is, before anybody knows its bytes: model, plan, rank, dtype, tile size; and the name that follows.

Covers: text that peers exchange, read with distrust; the files and sizes that follow from it.
Does not cover: digests of files (manifest.py), where tensors lie (slice_format.py).

Two slices with the same description hold the same bytes, so its hash names a slice on every device: whether a node has
what is asked for is one comparison, and no name that a peer sends ever becomes a path.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from common.errors import InputError, ModelError
from common.model.model_spec import ModelSpec, canonical_json
from common.model.plan import Plan
from common.weights.slice_format import (
    BLOCK_KINDS,
    FORMAT_VERSION,
    FileLayout,
    block_file_name,
    block_layout,
    check_storage,
    embedding_layout,
    head_layout,
    norms_layout,
)

COORDINATOR_RANK = -1
"""Rank of the slice that the coordinator keeps for itself: embedding, norms and head."""
EMBEDDING_FILE = "embedding.safetensors"
NORMS_FILE = "norms.safetensors"
HEAD_FILE = "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class SliceDescription:
    """Everything that decides a slice's bytes, but the model's weights themselves."""

    model_identity: str
    spec: ModelSpec
    plan: Plan
    rank: int
    dtype: str
    tile_bytes: int

    @property
    def slice_id(self) -> str:
        """SHA-256, in hex, of all this; of the plan only what each rank holds counts."""
        body = self.to_json()
        del body["plan"]
        return hashlib.sha256(canonical_json(body).encode()).hexdigest()

    def layouts(self) -> dict[str, FileLayout]:
        """Return the layout of every file of this slice, in the order in which a sweep uses them.

        Blocks that this rank has no part of are left out.
        """
        spec, dtype, tile_bytes = self.spec, self.dtype, self.tile_bytes
        if self.rank == COORDINATOR_RANK:
            return {
                EMBEDDING_FILE: embedding_layout(spec, dtype, tile_bytes),
                NORMS_FILE: norms_layout(spec),
                HEAD_FILE: head_layout(spec, dtype, tile_bytes),
            }
        share = self.plan.shares[self.rank]
        blocks = {kind: block_layout(spec, share, kind, dtype, tile_bytes) for kind in BLOCK_KINDS}
        return {
            block_file_name(layer, kind): blocks[kind]
            for layer in range(spec.layer_count)
            for kind in BLOCK_KINDS
            if blocks[kind].tiles
        }

    def of_rank(self, rank: int) -> SliceDescription:
        """Return another rank's slice of the same model and plan."""
        return replace(self, rank=rank)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        return {
            "format_version": FORMAT_VERSION,
            "model_identity": self.model_identity,
            "spec": self.spec.to_json(),
            "plan": self.plan.to_json(),
            "plan_digest": self.plan.digest,
            "rank": self.rank,
            "dtype": self.dtype,
            "tile_bytes": self.tile_bytes,
        }

    @classmethod
    def from_json(cls, value: Any) -> SliceDescription:
        """Read what `to_json` wrote; further keys are left alone. Raises: InputError: it makes no sense."""
        try:
            spec = ModelSpec.from_json(value["spec"])
            plan = Plan.from_json(value["plan"], spec)
            rank = int(value["rank"])
            if not COORDINATOR_RANK <= rank < plan.world_size:
                raise ValueError(f"rank {rank} of {plan.world_size}")
            dtype, tile_bytes = str(value["dtype"]), int(value["tile_bytes"])
            check_storage(dtype, tile_bytes)
            return cls(
                model_identity=str(value["model_identity"]), spec=spec, plan=plan, rank=rank,
                dtype=dtype, tile_bytes=tile_bytes,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, ModelError) as error:
            raise InputError(f"the description of a slice makes no sense: {error}") from error

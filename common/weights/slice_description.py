"""What a slice is, before anybody knows its bytes: model, plan, rank, dtype, tile size; and the name that follows.

Covers: text that peers exchange, read with distrust; the files and sizes that follow from it.
Does not cover: digests of files (manifest.py), where tensors lie (slice_format.py).

Two slices with the same description hold the same bytes, so its hash names a slice on every device: whether a node has
what is asked for is one comparison, and no name that a peer sends ever becomes a path.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

from common.errors import InputError, ModelError
from common.model.model_spec import ModelSpec, canonical_json
from common.model.plan import Plan
from common.model.size_limits import check_tile_count
from common.weights.encoded_format import encoded_block_layout, encoded_head_layout
from common.weights.encodings import is_encoded
from common.weights.model_encodings import ENCODED_DTYPES, ModelEncodings
from common.weights.slice_format import (
    BLOCK_KINDS,
    ENCODED_FORMAT_VERSION,
    FORMAT_VERSION,
    ITEM_BYTES,
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
    """What all matrices are stored as, or one of ENCODED_DTYPES."""
    tile_bytes: int
    encodings: ModelEncodings | None = None
    """Of a slice whose matrices have encodings of their own."""

    @property
    def format_version(self) -> int:
        return FORMAT_VERSION if self.encodings is None else ENCODED_FORMAT_VERSION

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
        if self.rank == COORDINATOR_RANK:
            return self._own_layouts()
        blocks = self.block_layouts()
        return {
            block_file_name(layer, kind): blocks[kind][layer]
            for layer in range(self.spec.layer_count)
            for kind in BLOCK_KINDS
            if blocks[kind][layer].tiles
        }

    def block_layouts(self) -> dict[str, tuple[FileLayout, ...]]:
        """Return, by kind, the layout of each layer's block on this rank: as many tiles in all layers."""
        spec, share = self.spec, self.plan.shares[self.rank]
        encodings = self.encodings
        if encodings is None:
            alike = {kind: block_layout(spec, share, kind, self.dtype, self.tile_bytes) for kind in BLOCK_KINDS}
            return {kind: (layout,) * spec.layer_count for kind, layout in alike.items()}
        first_alike = [encodings.layers.index(own) for own in encodings.layers]

        def made(kind: str, layer: int) -> FileLayout:
            return encoded_block_layout(spec, share, kind, encodings, layer, self.tile_bytes)

        once = {(kind, layer): made(kind, layer) for kind in BLOCK_KINDS for layer in set(first_alike)}
        return {kind: tuple(once[kind, layer] for layer in first_alike) for kind in BLOCK_KINDS}

    @property
    def shares_head(self) -> bool:
        """Whether embeddings are looked up in the head's file, and have none of their own."""
        return self.spec.tied_embeddings and self.encodings is not None and is_encoded(self.encodings.head)

    def weight_count(self) -> int:
        """Return how many numbers this rank's matrices have."""
        places = [place for layout in self.layouts().values() for tile in layout.tiles for place in tile.tensors]
        return sum(math.prod(place.shape) for place in places)

    def _own_layouts(self) -> dict[str, FileLayout]:
        spec, dtype, tile_bytes, encodings = self.spec, self.dtype, self.tile_bytes, self.encodings
        norms = norms_layout(spec)
        if encodings is None:
            embedding, head = embedding_layout(spec, dtype, tile_bytes), head_layout(spec, dtype, tile_bytes)
            return {EMBEDDING_FILE: embedding, NORMS_FILE: norms, HEAD_FILE: head}
        head = encoded_head_layout(spec, encodings.head, tile_bytes)
        if self.shares_head:
            return {NORMS_FILE: norms, HEAD_FILE: head}
        if is_encoded(encodings.embedding):
            embedding = encoded_head_layout(spec, encodings.embedding, tile_bytes, "embedding")
        else:
            embedding = embedding_layout(spec, encodings.embedding, tile_bytes)
        return {EMBEDDING_FILE: embedding, NORMS_FILE: norms, HEAD_FILE: head}

    def all_ranks(self) -> list[SliceDescription]:
        """Return every rank's slice and the coordinator's own, the last one."""
        return [self.of_rank(rank) for rank in (*range(self.plan.world_size), COORDINATOR_RANK)]

    def of_rank(self, rank: int) -> SliceDescription:
        """Return another rank's slice of the same model and plan."""
        return replace(self, rank=rank)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        encodings = {} if self.encodings is None else {"encodings": self.encodings.to_json()}
        return {
            "format_version": self.format_version,
            "model_identity": self.model_identity,
            "spec": self.spec.to_json(),
            "plan": self.plan.to_json(),
            "plan_digest": self.plan.digest,
            "rank": self.rank,
            "dtype": self.dtype,
            "tile_bytes": self.tile_bytes,
            **encodings,
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
            encodings = None
            if dtype in ENCODED_DTYPES:
                encodings = ModelEncodings.from_json(value["encodings"], spec)
            check_storage("float32" if encodings else dtype, tile_bytes)
            _check_tiles(spec, dtype, encodings, tile_bytes)
            return cls(
                model_identity=str(value["model_identity"]), spec=spec, plan=plan, rank=rank,
                dtype=dtype, tile_bytes=tile_bytes, encodings=encodings,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, ModelError) as error:
            raise InputError(f"the description of a slice makes no sense: {error}") from error


def _check_tiles(spec: ModelSpec, dtype: str, encodings: ModelEncodings | None, tile_bytes: int) -> None:
    """Raise UnsupportedModel for more tiles than a slice of any model has."""
    layer_kinds = 1 if encodings is None else len(set(encodings.layers))
    item_bytes = 1 if encodings is not None else ITEM_BYTES[dtype]
    check_tile_count(layer_kinds, spec.layer_value_count, spec.hidden_size * spec.vocab_size, item_bytes, tile_bytes)


def total_bytes(description: SliceDescription) -> int:
    """Return the bytes of all slices of a model's plan, the coordinator's own included."""
    return sum(layout.file_bytes for one in description.all_ranks() for layout in one.layouts().values())

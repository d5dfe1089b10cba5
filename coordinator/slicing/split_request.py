"""Which slices are wanted, and where do they lie?

    DIRECTORY/node0, node1, ..., coordinator             slices of one dtype: manifest.json and block files
    DIRECTORY/node0/PLAN, ..., coordinator/PLAN          of encodings of their own: a manifest for each plan,
    DIRECTORY/store                                      and the packs that all plans share

Does not cover: making them (splitter.py, packed_slices.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.model.model_spec import canonical_json
from common.model.plan import Plan
from common.weights.manifest import COORDINATOR_RANK
from common.weights.model_encodings import ModelEncodings
from common.weights.packs import STORE_DIRECTORY
from common.weights.slice_description import SliceDescription
from coordinator.checkpoints.checkpoint import Checkpoint

OWN_SLICE = "coordinator"
"""The directory of the coordinator's own."""

LOCK = ".lock"
"""Is held by whoever changes what lies there."""
INCOMPLETE = ".incomplete"
"""Is there while slices are being replaced: then nothing there counts."""

ReportBytes = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) as a split goes on."""


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """What slices are wanted, and where."""

    plan: Plan
    dtype: str
    tile_bytes: int
    encodings: ModelEncodings | None = None
    """Of slices whose matrices have encodings of their own."""
    directory: Path
    with_nodes: bool = True
    """False: only the coordinator's own slice; the nodes' are elsewhere."""

    def slice_directory(self, rank: int) -> Path:
        """Return where a rank's slice lies."""
        directory = self.directory / (OWN_SLICE if rank == COORDINATOR_RANK else f"node{rank}")
        return directory if self.encodings is None else directory / self.plan_name

    @property
    def store_directory(self) -> Path:
        """Where packs lie."""
        return self.directory / STORE_DIRECTORY

    @property
    def plan_name(self) -> str:
        """What the plan's directories are called, among those of other plans, of tiles that are cut otherwise too."""
        encodings = None if self.encodings is None else self.encodings.to_json()
        text = canonical_json([self.plan.digest, self.dtype, self.tile_bytes, encodings])
        return f"{self.plan.world_size}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def slice_of(self, checkpoint: Checkpoint, rank: int) -> SliceDescription:
        """Return what a rank's slice is."""
        return SliceDescription(
            model_identity=checkpoint.identity, spec=checkpoint.spec, plan=self.plan, rank=rank, dtype=self.dtype,
            tile_bytes=self.tile_bytes, encodings=self.encodings,
        )  # fmt: skip

    @property
    def ranks(self) -> range:
        """Return which slices are wanted, the coordinator's own first."""
        return range(COORDINATOR_RANK, self.plan.world_size if self.with_nodes else COORDINATOR_RANK + 1)

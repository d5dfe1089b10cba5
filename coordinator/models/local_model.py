"""A model whose files lie on this machine: opened, planned, and cut into slices beside them.

Covers: what `generate` and `split` run on. Does not cover: models that were loaded onto a mesh (records.py), opening
files (checkpoints/checkpoint.py), cutting (slicing/splitter.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.model.plan import Plan, make_plan
from common.weights.manifest import COORDINATOR_RANK
from common.weights.slice_format import DEFAULT_TILE_BYTES, ITEM_BYTES
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.ranks.identity import RanksIdentity
from coordinator.slicing.splitter import ReportBytes, SplitRequest, ensure_slices


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how it is cut."""

    model: Path
    world_size: int = 1
    split_strategy: str = "uniform"
    save_dir: str = "split"
    """Where slices go; relative to the model's directory."""
    split_bin: bool = False
    """Slice again even if slices are there."""
    weights_dtype: str | None = None
    """Stored dtype; None for the source's own."""
    with_nodes: bool = True
    """Whether the nodes' slices are made too; False: nodes that run already have theirs."""

    def __post_init__(self) -> None:
        if self.weights_dtype is not None and self.weights_dtype not in ITEM_BYTES:
            raise InputError(f"--weights-dtype is '{self.weights_dtype}'; use {', '.join(ITEM_BYTES)}")

    @property
    def split_directory(self) -> Path:
        base = self.model if self.model.is_dir() else self.model.parent
        return base / self.save_dir


class LocalModel:
    """An opened checkpoint with its plan; slices on demand. Close it."""

    def __init__(self, options: ModelOptions) -> None:
        """Raises: ModelError and its kinds; InputError: the strategy does not fit."""
        self.options = options
        self.checkpoint: Checkpoint = open_checkpoint(options.model)
        try:
            self.plan: Plan = make_plan(self.checkpoint.spec, options.split_strategy, options.world_size)
        except BaseException:
            self.checkpoint.close()
            raise
        self.dtype = options.weights_dtype or self.checkpoint.dtype
        self.split = SplitRequest(
            plan=self.plan, dtype=self.dtype, tile_bytes=DEFAULT_TILE_BYTES, directory=options.split_directory,
            with_nodes=options.with_nodes,
        )  # fmt: skip

    def slice(self, progress: ReportBytes) -> bool:
        """Make the slices unless they are there; return whether they had to be made."""
        return ensure_slices(self.checkpoint, self.split, redo=self.options.split_bin, progress=progress)

    @property
    def name(self) -> str:
        """What it is called here: as its directory or file."""
        return self.options.model.name

    @property
    def node_names(self) -> Sequence[str]:
        """None: it is on no mesh."""
        return ()

    @property
    def identity(self) -> RanksIdentity:
        checkpoint = self.checkpoint
        return RanksIdentity(model_identity=checkpoint.identity, spec=checkpoint.spec, plan=self.plan, dtype=self.dtype)

    @property
    def own_directory(self) -> Path:
        """The coordinator's own slice."""
        return self.split.slice_directory(COORDINATOR_RANK)

    @property
    def node_directories(self) -> list[Path]:
        """The nodes' slices, by rank, where they are on this machine."""
        ranks = range(self.plan.world_size) if self.options.with_nodes else ()
        return [self.split.slice_directory(rank) for rank in ranks]

    def close(self) -> None:
        self.checkpoint.close()

"""A model whose files lie on this machine: opened, planned, and cut into slices beside them.

Covers: what `generate` and `split` run on. Does not cover: models that were loaded onto a mesh (records.py), opening
files (checkpoints/checkpoint.py), cutting (slicing/splitter.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import InputError, SliceError
from common.model.plan import Plan
from common.weights.balanced_plans import balanced_plan
from common.weights.manifest import COORDINATOR_RANK, read_manifest
from common.weights.model_encodings import AS_THE_FILE, WEIGHTS_DTYPES
from common.weights.slice_description import total_bytes
from coordinator.checkpoints.checkpoint import Checkpoint, as_stored_in, open_checkpoint
from coordinator.planning.outline import outline
from coordinator.ranks.identity import RanksIdentity
from coordinator.slicing.split_request import OWN_SLICE, ReportBytes, SplitRequest
from coordinator.slicing.splitter import ensure_slices


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
    """Stored dtype; None for the source's own, or what the slices have that are there."""
    keeps_blocks: bool = True
    """Whether a quantized file's own are its blocks; False: their numbers, for what computes with nothing else."""
    with_nodes: bool = True
    """Whether the nodes' slices are made too; False: nodes that run already have theirs."""

    def __post_init__(self) -> None:
        if self.weights_dtype is not None and self.weights_dtype not in WEIGHTS_DTYPES:
            raise InputError(f"--weights-dtype is '{self.weights_dtype}'; use {', '.join(WEIGHTS_DTYPES)}")

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
            self.dtype = options.weights_dtype or self._dtype_there() or self._own_dtype
            description = outline(self.checkpoint).description(self.dtype)
            self.checkpoint = as_stored_in(self.checkpoint, self.dtype)
            self.plan: Plan = balanced_plan(description, options.split_strategy, options.world_size)
        except BaseException:
            self.checkpoint.close()
            raise
        self.split = SplitRequest(
            plan=self.plan, dtype=self.dtype, encodings=description.encodings, tile_bytes=description.tile_bytes,
            directory=options.split_directory, with_nodes=options.with_nodes,
        )  # fmt: skip

    def slice(self, progress: ReportBytes) -> bool:
        """Make the slices unless they are there; return whether they had to be made."""
        return ensure_slices(self.checkpoint, self.split, redo=self.options.split_bin, progress=progress)

    @property
    def widened_bytes(self) -> tuple[int, int] | None:
        """Return the bytes of slices that are there as numbers though the file's blocks could be kept, and of those."""
        if self.dtype == self._own_dtype or self.options.weights_dtype or self.options.split_bin:
            return None
        wanted = outline(self.checkpoint).description(self._own_dtype)
        found = outline(self.checkpoint).description(self.dtype)
        return total_bytes(replace(found, plan=self.plan)), total_bytes(replace(wanted, plan=self.plan))

    @property
    def _own_dtype(self) -> str:
        keeps = self.options.keeps_blocks and self.checkpoint.encodings is not None
        return AS_THE_FILE if keeps else self.checkpoint.dtype

    def _dtype_there(self) -> str | None:
        """Return what the slices of this model are stored as that are there already and are the source's own."""
        if self.options.split_bin:
            return None
        own = self.options.split_directory / OWN_SLICE
        try:
            manifest = read_manifest(own)
        except SliceError:  # none, or none that can be used: slicing says so
            return None
        is_own = manifest.model_identity == self.checkpoint.identity and manifest.dtype == self.checkpoint.dtype
        return manifest.dtype if is_own else None

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

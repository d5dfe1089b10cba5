"""A tiny random model, saved and cut into slices: what nodes, heads and manifests of tests are made of.

    sliced = slice_model(tmp_path, world_size=2, dtype="bfloat16")
    ShardNode(sliced.node_config(rank=1, listen="127.0.0.1:0"))

Does not cover: the models themselves (random_models.py), nodes that listen (listening_nodes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.compute.residual import Residual
from common.model.model_spec import ModelSpec
from common.model.plan import Plan, make_plan
from common.weights.manifest import COORDINATOR_RANK, SliceManifest, read_manifest
from common.weights.weight_memory import WeightMemory
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.engine.ends import Ends
from coordinator.ranks.identity import RanksIdentity
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.splitter import ensure_slices
from shardnode.config import NodeConfig
from tests.support.model_tensors import RandomModel
from tests.support.random_models import build, save

TILE_BYTES = 8192
"""Small, so that even tiny blocks have several tiles."""


@dataclass(frozen=True, kw_only=True)
class SlicedModel:
    """A model on disk with its slices."""

    model: RandomModel
    directory: Path
    identity: RanksIdentity
    split: SplitRequest

    @property
    def spec(self) -> ModelSpec:
        return self.identity.spec

    @property
    def plan(self) -> Plan:
        return self.identity.plan

    def slice_directory(self, rank: int = COORDINATOR_RANK) -> Path:
        return self.split.slice_directory(rank)

    def manifest(self, rank: int = COORDINATOR_RANK) -> SliceManifest:
        return read_manifest(self.slice_directory(rank))

    def node_config(self, *, rank: int = 0, listen: str = "127.0.0.1:0", **settings: Any) -> NodeConfig:
        """Return how the node of `rank` is started, with one thread unless `settings` say otherwise."""
        settings = {
            "thread_count": 1, "kv_budget_bytes": 1 << 20, "weights": WeightMemory(read_timeout_seconds=10.0),
            **settings,
        }  # fmt: skip
        return NodeConfig(slice_directory=self.slice_directory(rank), listen=listen, **settings)

    def residual(self) -> Residual:
        """Return what the coordinator has between blocks."""
        ends = Ends(self.slice_directory(), self.manifest())
        ends.close()
        return ends.residual


def no_progress(done_bytes: int, total_bytes: int) -> None:
    """Watch a split go on and say nothing."""


def slice_model(
    directory: Path,
    *,
    model: RandomModel | None = None,
    world_size: int = 1,
    strategy: str = "uniform",
    dtype: str = "float32",
    tile_bytes: int = TILE_BYTES,
) -> SlicedModel:
    """Save `model` (a tiny Llama of two layers by default) into `directory`, slice it, and return both."""
    chosen = model if model is not None else build(layers=2, vocab_size=260)
    saved = save(chosen, directory)
    split, identity = slice_checkpoint(
        saved, directory / "split", world_size=world_size, strategy=strategy, dtype=dtype, tile_bytes=tile_bytes
    )
    return SlicedModel(model=chosen, directory=directory, identity=identity, split=split)


def slice_checkpoint(
    saved: Path,
    directory: Path,
    *,
    world_size: int = 1,
    strategy: str = "uniform",
    dtype: str = "float32",
    tile_bytes: int = TILE_BYTES,
) -> tuple[SplitRequest, RanksIdentity]:
    """Slice a saved model into `directory`; return what was asked for, and what nodes that run it call themselves."""
    checkpoint = open_checkpoint(saved)
    try:
        plan = make_plan(checkpoint.spec, strategy, world_size)
        split = SplitRequest(plan=plan, dtype=dtype, tile_bytes=tile_bytes, directory=directory)
        ensure_slices(checkpoint, split, redo=False, progress=no_progress)
        identity = RanksIdentity(
            model_identity=checkpoint.identity, spec=checkpoint.spec, plan=plan, dtype=dtype
        )  # fmt: skip
    finally:
        checkpoint.close()
    return split, identity

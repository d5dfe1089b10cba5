"""Runs token sequences through a whole mesh: nodes in threads of this process, or real processes.

    with sliced(path, directory, world_size=3) as model, thread_mesh(model, memory_window=2) as conversation:
        sequence = new_sequence(conversation, [5, 6, 7], length=8)
        run_together(conversation, [sequence])       # sequence.generated_ids

Covers: everything of the product between token ids in and token ids out; only text is left out.
Threads start in milliseconds, so they are for small models; processes are what a person runs.
Does not cover: what the answer should be (transformers_answers.py).
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np

from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from coordinator.answering.open_model import OpenModel
from coordinator.answering.run_options import RunOptions
from coordinator.engine.sampler import Sampler, SamplingParams
from coordinator.engine.sequence import Sequence as TokenSequence
from coordinator.local.pool import LocalNodes, LocalOptions
from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.ranks.travel import Travel
from shardnode.config import NodeConfig
from shardnode.run import RunningNode

Transport = Literal["direct", "grpc"]
GREEDY = SamplingParams(temperature=0)
KV_BUDGET_BYTES = 1 << 28
_sequence_ids = itertools.count(1)


class RecordingSampler(Sampler):
    """A sampler that keeps the logits it was shown."""

    def __init__(self, params: SamplingParams = GREEDY, seed: int = 0) -> None:
        super().__init__(params, seed)
        self._rows: list[Floats] = []

    def sample(self, logits: Floats, position: int) -> int:
        """See Sampler."""
        self._rows.append(logits.copy())
        return super().sample(logits, position)

    @property
    def logits(self) -> Floats:
        """Every row so far: float32 [token_count, vocab_size]."""
        return np.stack(self._rows)


@contextmanager
def sliced(
    path: Path, directory: Path, *, world_size: int, strategy: str = "uniform", tile_bytes: int | None = None,
    weights_dtype: str | None = None,
) -> Iterator[LocalModel]:  # fmt: skip
    """Open the model at `path` with its slices in `directory`; made there unless they are there already.

    Args: tile_bytes: small ones cut the blocks of a small model into several tiles; None takes the product's own.
    """
    model = LocalModel(ModelOptions(
        model=path, world_size=world_size, split_strategy=strategy, save_dir=str(directory.absolute()),
        weights_dtype=weights_dtype,
    ))  # fmt: skip
    try:
        if tile_bytes is not None:
            model.split = dataclasses.replace(model.split, tile_bytes=tile_bytes)
        model.slice(lambda done, total: None)
        yield model
    finally:
        model.close()


class ThreadNodes:
    """Every node of a sliced model, by rank, in threads of this process and over real sockets."""

    def __init__(self, configs: Sequence[NodeConfig], transport: Transport) -> None:
        self._configs, self._transport = configs, transport
        self.nodes: list[RunningNode] = []
        for config in configs:
            self.nodes.append(self._started(config))

    @property
    def addresses(self) -> list[str]:
        """Return where each node listens."""
        return [node.address for node in self.nodes]

    def restart(self) -> None:
        """End every node, and start others that listen in the same places and know nothing."""
        for rank, config in enumerate(self._configs):
            self.nodes[rank].close()
            self.nodes[rank] = self._started(config)

    def close(self) -> None:
        """End every node."""
        for node in self.nodes:
            node.close()

    def _started(self, config: NodeConfig) -> RunningNode:
        rounds = config.listen.removeprefix("unix:") + ".rounds"
        return RunningNode(config, direct_path=rounds if self._transport == "direct" else "")


@contextmanager
def thread_nodes(
    model: LocalModel, *, memory_window: int, transport: Transport = "direct", kv_budget_bytes: int = KV_BUDGET_BYTES
) -> Iterator[ThreadNodes]:
    """Run every node of a sliced model in threads of this process."""
    # Not pytest's directory: a Unix socket's path has 108 bytes at most.
    with tempfile.TemporaryDirectory(prefix="shardmesh-") as sockets:
        nodes = ThreadNodes([
            NodeConfig(
                slice_directory=model.split.slice_directory(rank), listen=f"unix:{sockets}/node{rank}.sock",
                weights=WeightMemory(memory_window=memory_window), kv_budget_bytes=kv_budget_bytes, thread_count=1,
            )
            for rank in range(model.plan.world_size)
        ], transport)  # fmt: skip
        with closing(nodes):
            yield nodes


@contextmanager
def thread_mesh(
    model: LocalModel, *, memory_window: int, transport: Transport = "direct", wire_dtype: str = "float32",
    activations: str = "float32",
) -> Iterator[OpenModel]:  # fmt: skip
    """Run every node of a sliced model in threads of this process, and connect to them."""
    with thread_nodes(model, memory_window=memory_window, transport=transport) as nodes:
        run = dataclasses.replace(
            run_options(memory_window, nodes.addresses), travel=Travel(dtype=wire_dtype), activations=activations
        )
        with OpenModel(model, run, None) as opened:
            yield opened


@contextmanager
def importing_pool() -> Iterator[LocalNodes]:
    """Start a pool of nodes; its imports take two seconds, during which something else may be done."""
    pool = LocalNodes()
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def process_meshes(
    model: LocalModel, pool: LocalNodes, *, memory_windows: Sequence[Sequence[int]]
) -> Iterator[list[OpenModel]]:  # fmt: skip
    """Run every node of a sliced model as a process of its own, all forked from one pool.

    Args: memory_windows: of each mesh, by rank; a coordinator streams its head if any of its nodes streams.

    Each node has one thread, for the other tests beside it.
    """
    count = model.plan.world_size
    windows = [window for mesh in memory_windows for window in mesh]
    with ExitStack() as closing:
        closing.enter_context(mock.patch("coordinator.local.pool.usable_core_count", return_value=count))
        nodes = pool.start(LocalOptions(
            slice_directories=model.node_directories * len(memory_windows),
            kv_budget_bytes=[KV_BUDGET_BYTES] * len(windows),
            weights=[WeightMemory(memory_window=window) for window in windows],
        ))  # fmt: skip
        meshes = []
        for index, mesh in enumerate(memory_windows):
            addresses = [node.address for node in nodes[index * count : (index + 1) * count]]
            meshes.append(closing.enter_context(OpenModel(model, run_options(max(mesh), addresses), None)))
        yield meshes


def run_options(memory_window: int, addresses: Sequence[str] = ()) -> RunOptions:
    """Return how a coordinator runs over nodes at these addresses, or starts them."""
    weights = WeightMemory(memory_window=memory_window)
    return RunOptions(weights=weights, kv_budget_bytes=KV_BUDGET_BYTES, node_addresses=addresses)


@contextmanager
def process_mesh(model: LocalModel, *, memory_window: int) -> Iterator[OpenModel]:
    """Run one mesh of processes as `generate` does."""
    with importing_pool() as pool, OpenModel(model, run_options(memory_window), pool) as mesh:
        yield mesh


def new_sequence(
    conversation: OpenModel, prompt_ids: Sequence[int], *, length: int, sampler: Sampler | None = None
) -> TokenSequence:
    """Return a sequence that goes on past end tokens; greedy without a sampler."""
    return TokenSequence(
        sequence_id=next(_sequence_ids), prompt_ids=tuple(prompt_ids), max_new_tokens=length,
        eos_ids=frozenset(), sampler=sampler or Sampler(GREEDY, 0),
    )  # fmt: skip


def run_together(conversation: OpenModel, sequences: Sequence[TokenSequence]) -> None:
    """Add the sequences at once and run until all have ended."""
    for sequence in sequences:
        conversation.engine.add(sequence)
    while any(sequence.finish_reason is None for sequence in sequences):
        conversation.engine.step()


def run_alone(
    conversation: OpenModel, prompt_ids: Sequence[int], *, length: int, sampler: Sampler | None = None
) -> list[int]:
    """Return the answer to one prompt that has the mesh to itself."""
    sequence = new_sequence(conversation, prompt_ids, length=length, sampler=sampler)
    run_together(conversation, [sequence])
    return sequence.generated_ids

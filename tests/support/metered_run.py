"""A run that moves nearly every series, and the pages of its two nodes and its coordinator.

    pages = metered_run(tmp_path, sockets)

Covers: an answer, a request that is refused, a session that breaks, a load in vain, members and a loaded model by name.
Does not cover: what the pages must hold (tests/contract/test_metrics_page.py), a true mesh
(tests/contract/test_series_of_a_mesh.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from prometheus_client import generate_latest

from common.errors import KvBudgetExceeded
from common.weights.manifest import COORDINATOR_RANK
from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from common.wire.rpc import channel_options
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Finished, Started, Token
from coordinator.answering.run_options import RunOptions
from coordinator.engine.sampler import Sampler
from coordinator.membership.state import MeshState, init_mesh, open_mesh_state
from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.models.records import LoadedModels
from coordinator.program.program_series import ProgramSeries
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from shardnode.run import RunningNode
from tests.support.asking import GREEDY, Reopening, asked, tokens
from tests.support.fake_load import load_in_vain
from tests.support.kept_mesh import PI, issued
from tests.support.listening_nodes import ask
from tests.support.metrics_pages import fetched, total
from tests.support.session_messages import open_sequence, open_session
from tests.support.sliced_models import SlicedModel, slice_model
from tests.support.waiting import wait_until

PROMPT = (5, 6, 7)
KV_BUDGET_BYTES = 40_000
OBSERVER = "prometheus"
NODES = ("node0", "node1")
"""As series of a run without a mesh call them; the mesh that the coordinator's other series are of has such members."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What two nodes and their coordinator showed in the middle of an answer, and after all was over."""

    nodes_meanwhile: tuple[str, ...]
    nodes: tuple[str, ...]
    coordinator_meanwhile: str
    coordinator: str
    coordinator_after_a_break: str
    model: str


def scraped(node: RunningNode) -> str:
    """Fetch a node's page."""
    return fetched(node.metrics_port)


class Waiting(Sampler):
    """Chooses the second token only once something has happened."""

    def __init__(self, happened: threading.Event) -> None:
        super().__init__(GREEDY, 0)
        self._happened, self._count = happened, 0

    def sample(self, logits: Floats, position: int) -> int:
        """See Sampler."""
        self._count += 1
        assert self._count == 1 or self._happened.wait(30)
        return super().sample(logits, position)


def metered_run(directory: Path, sockets: Path) -> Pages:
    """Run two nodes, one streaming and one all resident: an answer, a refusal, a broken session.

    Args: directory: for a model and the state of a mesh; sockets: one whose path is short.
    """
    series = ProgramSeries(mesh_of_two(directory))
    sliced = slice_model(directory / "model", world_size=2)
    with ExitStack() as closing:
        nodes = []
        for rank, window in enumerate((2, 0)):
            config = sliced.node_config(
                rank=rank, listen=f"unix:{sockets}/{rank}", weights=WeightMemory(memory_window=window),
                metrics_port=0, kv_budget_bytes=KV_BUDGET_BYTES,
            )  # fmt: skip
            nodes.append(RunningNode(config))
            closing.callback(nodes[-1].close)
        return _run(sliced, nodes, series)


def mesh_of_two(directory: Path) -> MeshState:
    """Return a mesh with two members that were never reached, and an observer."""
    init_mesh(directory / "mesh", "home")
    state = open_mesh_state(directory / "mesh")
    for name in NODES:
        state.members.admit(name, state.invites.make(60), name, PI, lambda: issued("a1"))
    state.observers.admit(OBSERVER, lambda authority: issued("b1"))
    return state


def heard(sliced: SlicedModel, model: LocalModel, series: ProgramSeries, state: MeshState) -> None:
    """Have the members say that they serve the model, which was loaded onto them."""
    for rank, name in enumerate(NODES):
        state.members.hear(name, f"192.0.2.{rank}:1", PI, rank, sliced.identity.model_identity, 0.25)
    records = LoadedModels(state.directory)
    own = model.split.slice_of(model.checkpoint, COORDINATOR_RANK)
    (records.directory / model.name).mkdir(parents=True)
    records.save(records.future(model.name, model.options.model, own, NODES))
    series.models.brought(model.name, [5] * len(NODES), [10] * len(NODES))


def _run(sliced: SlicedModel, nodes: list[RunningNode], series: ProgramSeries) -> Pages:
    run = RunOptions(kv_budget_bytes=1, node_addresses=[node.address for node in nodes])
    with ExitStack() as closing:
        model = LocalModel(ModelOptions(model=sliced.directory, world_size=2))
        closing.callback(model.close)
        heard(sliced, model, series, series.state)
        load_in_vain(series.models, sliced.directory.parent)
        source = Reopening(model, run, series.answers)
        answers = Answers(source, series.answers)
        closing.callback(answers.close)
        scraped_meanwhile = threading.Event()
        answer = iter(asked(answers, model, PROMPT, length=4, sampler=Waiting(scraped_meanwhile)))
        assert [type(next(answer)) for _ in range(2)] == [Started, Token]
        coordinator_meanwhile = generate_latest(series.registry).decode()
        nodes_meanwhile = tuple(scraped(node) for node in nodes)
        scraped_meanwhile.set()
        assert [type(event) for event in answer] == [Token, Token, Token, Finished]
        with taken_room(sliced, nodes), pytest.raises(KvBudgetExceeded, match="node 0"):
            tokens(asked(answers, model, PROMPT, length=10))
        settled = wait_until_settled(nodes)
        coordinator = generate_latest(series.registry).decode()
        broken = iter(asked(answers, model, PROMPT, length=20))
        assert [type(next(broken)) for _ in range(2)] == [Started, Token]
        source.opened[-1].interrupt()
        assert len(tokens(broken)) == 19
        after_a_break = generate_latest(series.registry).decode()
    return Pages(
        nodes_meanwhile=nodes_meanwhile, nodes=settled, coordinator_meanwhile=coordinator_meanwhile,
        coordinator=coordinator, coordinator_after_a_break=after_a_break, model=model.name,
    )  # fmt: skip


@contextmanager
def taken_room(sliced: SlicedModel, nodes: list[RunningNode]) -> Iterator[None]:
    """Have another coordinator take nearly all the room for keys and values that nodes have."""
    with ExitStack() as closing:
        for rank, node in enumerate(nodes):
            channel = closing.enter_context(grpc.insecure_channel(node.address, options=channel_options()))
            client = GrpcShardClient(channel, f"node {rank}")
            closing.callback(client.close)
            heads = len(sliced.identity.plan.shares[rank].kv_heads(sliced.spec))
            most = KV_BUDGET_BYTES // sliced.spec.kv_bytes(heads, 1)
            ask(client, open_session(1, sliced.identity, rank=rank))
            assert not ask(client, open_sequence(2, position_capacity=most - 8)).sequences_changed.refused
        yield


def wait_until_settled(nodes: list[RunningNode]) -> tuple[str, ...]:
    """Return nodes' pages once they hold nothing for anybody."""
    pages = [scraped(node) for node in nodes]

    def are_empty() -> bool:
        pages[:] = [scraped(node) for node in nodes]
        return not any(total(page, "shardmesh_node_sequences") for page in pages)

    wait_until(are_empty, limit_seconds=30, what="no sequence is open")
    return tuple(pages)

"""Are the metrics pages of node and coordinator what dashboards were built on, and does a real run move every series?

Covers: names, types, help and labels of every series (golden pages beside this file), and that none of them is dead.
Does not cover: dashboards and alerts (deploy/).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common.errors import KvBudgetExceeded, ProtocolError, all_error_classes
from common.weights.stored_numbers import Floats
from common.weights.weight_memory import WeightMemory
from common.wire.rpc import channel_options
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Finished, Started, Token
from coordinator.answering.run_options import RunOptions
from coordinator.engine.sampler import Sampler
from coordinator.engine.sequence import LENGTH
from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.ranks.transports.grpc_stream import GrpcShardClient
from shardnode.run import RunningNode
from tests.support.asking import GREEDY, Reopening, asked, tokens
from tests.support.fake_load import load_in_vain
from tests.support.listening_nodes import ask
from tests.support.session_messages import open_sequence, open_session
from tests.support.sliced_models import SlicedModel, slice_model
from tests.support.waiting import wait_until

HERE = Path(__file__).resolve().parent
PROMPT = (5, 6, 7)
KV_BUDGET_BYTES = 40_000
MADE_BY_THE_LIBRARY = "_created"
"""prometheus_client puts the time of birth beside every counter and histogram."""
UNITS_THAT_ARE_NOT_BASE = re.compile(r"_(ms|milliseconds|us|nanoseconds|minutes|hours|kb|kib|mb|mib|gb|percent)(_|$)")
ENTRY = re.compile(r"^shardmesh_(node|coordinator)_[a-z_]+$")


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What two nodes and their coordinator showed in the middle of an answer, and after all was over."""

    nodes_meanwhile: tuple[str, ...]
    nodes: tuple[str, ...]
    coordinator_meanwhile: str
    coordinator: str
    coordinator_after_a_break: str


def scraped(node: RunningNode) -> str:
    """Fetch a node's page as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{node.metrics_port}/metrics", timeout=10) as answer:
        return answer.read().decode()


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


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Run a mesh of two nodes, one streaming and one all resident: an answer, a refusal, a broken session."""
    sliced = slice_model(tmp_path_factory.mktemp("model"), world_size=2)
    sockets = tmp_path_factory.mktemp("s")
    with ExitStack() as closing:
        nodes = []
        for rank, window in enumerate((2, 0)):
            config = sliced.node_config(
                rank=rank, listen=f"unix:{sockets}/{rank}", weights=WeightMemory(memory_window=window),
                metrics_port=0, kv_budget_bytes=KV_BUDGET_BYTES,
            )  # fmt: skip
            nodes.append(RunningNode(config))
            closing.callback(nodes[-1].close)
        return _run(sliced, nodes)


def _run(sliced: SlicedModel, nodes: list[RunningNode]) -> Pages:
    metrics = AnswerSeries()
    run = RunOptions(kv_budget_bytes=1, node_addresses=[node.address for node in nodes])
    with ExitStack() as closing:
        model = LocalModel(ModelOptions(model=sliced.directory, world_size=2))
        closing.callback(model.close)
        load_in_vain(metrics, sliced.directory.parent)
        source = Reopening(model, run, metrics)
        answers = Answers(source, metrics)
        closing.callback(answers.close)
        scraped_meanwhile = threading.Event()
        answer = iter(asked(answers, model, PROMPT, length=4, sampler=Waiting(scraped_meanwhile)))
        assert [type(next(answer)) for _ in range(2)] == [Started, Token]
        coordinator_meanwhile = generate_latest(metrics.registry).decode()
        nodes_meanwhile = tuple(scraped(node) for node in nodes)
        scraped_meanwhile.set()
        assert [type(event) for event in answer] == [Token, Token, Token, Finished]
        with taken_room(sliced, nodes), pytest.raises(KvBudgetExceeded, match="node 0"):
            tokens(asked(answers, model, PROMPT, length=10))
        settled = wait_until_settled(nodes)
        coordinator = generate_latest(metrics.registry).decode()
        broken = iter(asked(answers, model, PROMPT, length=20))
        assert [type(next(broken)) for _ in range(2)] == [Started, Token]
        source.opened[-1].interrupt()
        assert len(tokens(broken)) == 19
        after_a_break = generate_latest(metrics.registry).decode()
    return Pages(
        nodes_meanwhile=nodes_meanwhile, nodes=settled, coordinator_meanwhile=coordinator_meanwhile,
        coordinator=coordinator, coordinator_after_a_break=after_a_break,
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


def families(page: str) -> Iterator[Metric]:
    """Yield the families of a page that are ours."""
    return (family for family in text_string_to_metric_families(page) if not family.name.endswith(MADE_BY_THE_LIBRARY))


def described(page: str) -> str:
    """Return one line per series: full name, type, labels, help; without values."""
    lines = []
    for family in families(page):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        lines.append(f"{name} {family.type} [{','.join(labels)}] {family.documentation}")
    return "\n".join(sorted(lines)) + "\n"


def moved(*pages: str) -> set[str]:
    """Return the names of families that have a sample above 0 on one of the pages."""
    return {family.name for page in pages for family in families(page) for sample in family.samples if sample.value > 0}


def total(page: str, name: str, **labels: str) -> float:
    """Return the one sample of that name and those labels."""
    (value,) = [
        sample.value
        for family in families(page) for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]  # fmt: skip
    return value


@pytest.mark.parametrize("part", ["node", "coordinator"])
def test_the_page_is_the_golden_one(pages: Pages, part: str) -> None:
    """A changed name, type, label or help breaks somebody's dashboard: change the golden page with intent."""
    page = pages.nodes[0] if part == "node" else pages.coordinator
    golden = (HERE / f"metrics_{part}.txt").read_text()
    assert described(page) == golden, f"if this is meant, put this into tests/contract/metrics_{part}.txt"


def test_a_run_moves_every_series_of_a_node(pages: Pages) -> None:
    """A series that nothing moves promises what nobody measures."""
    every = pages.nodes + pages.nodes_meanwhile
    assert {family.name for page in every for family in families(page)} - moved(*every) == set()


def test_a_run_moves_every_series_of_the_coordinator(pages: Pages) -> None:
    """The same for the coordinator."""
    every = (pages.coordinator, pages.coordinator_meanwhile, pages.coordinator_after_a_break)
    assert {family.name for page in every for family in families(page)} - moved(*every) == set()


def test_names_follow_the_house_and_prometheus(pages: Pages) -> None:
    """Prefix, base units, `_total` on counters and on nothing else, help as a sentence."""
    for page in (pages.nodes[0], pages.coordinator):
        for family in families(page):
            assert ENTRY.match(family.name)
            assert not UNITS_THAT_ARE_NOT_BASE.search(family.name)
            assert not family.name.endswith("_total")
            assert {sample.name.endswith("_total") for sample in family.samples} == {family.type == "counter"}
            assert family.documentation.endswith(".")


def test_labels_come_from_closed_sets(pages: Pages) -> None:
    """No label holds an id or a text: kinds, reasons, outcomes and ranks only."""
    closed = {
        "kind": {"attention", "ffn", "prompt", "answer"},
        "reason": {cls.reason for cls in all_error_classes()},
        "outcome": {"stop", "length", "error", "cancelled"},
        "rank": {"0", "1"},
    }
    for page in (*pages.nodes, pages.coordinator):
        for family in families(page):
            for sample in family.samples:
                for label, value in sample.labels.items():
                    assert label == "le" or value in closed[label]


def test_the_coordinators_counts_are_those_of_the_run(pages: Pages) -> None:
    """Three prompt tokens, four of the answer: 2 layers x 2 kinds x 4 sweeps; a request refused in its first round."""
    page = pages.coordinator
    prefix = "shardmesh_coordinator_"
    assert total(page, f"{prefix}tokens_total", kind="prompt") == 3
    assert total(page, f"{prefix}tokens_total", kind="answer") == 4
    assert total(page, f"{prefix}requests_total", outcome=LENGTH) == 1
    assert total(page, f"{prefix}requests_total", outcome="error") == 1
    assert total(page, f"{prefix}node_failures_total", reason="KV_BUDGET_EXCEEDED") == 1
    assert total(page, f"{prefix}sweep_seconds_count") == 5
    assert total(page, f"{prefix}time_to_first_token_seconds_count") == 1
    assert total(page, f"{prefix}time_per_token_seconds_count") == 3
    for rank in ("0", "1"):
        assert total(page, f"{prefix}round_trip_seconds_count", rank=rank) == 17
    slowest = [total(page, f"{prefix}slowest_rounds_total", rank=rank) for rank in ("0", "1") if
               f'slowest_rounds_total{{rank="{rank}"}}' in page]  # fmt: skip
    assert sum(slowest) == 17
    assert total(pages.coordinator_meanwhile, f"{prefix}sequences") == 1
    assert total(page, f"{prefix}sequences") == 0


def test_a_nodes_counts_are_those_of_the_run(pages: Pages) -> None:
    """Sweeps, blocks, one refused sequence; what is resident was read once and what streams was read every sweep."""
    streaming, resident = pages.nodes
    for page in pages.nodes:
        assert total(page, "shardmesh_node_sweeps_total") == 5
        assert total(page, "shardmesh_node_failures_total", reason="KV_BUDGET_EXCEEDED") == 1
        for kind in ("attention", "ffn"):
            assert total(page, "shardmesh_node_compute_seconds_count", kind=kind) == 8
        assert total(page, "shardmesh_node_kv_budget_bytes") == 40_000
        assert total(page, "shardmesh_node_sequences") == total(page, "shardmesh_node_kv_bytes") == 0
    for page in pages.nodes_meanwhile:
        assert total(page, "shardmesh_node_sequences") == 1
        assert 0 < total(page, "shardmesh_node_kv_bytes") <= 40_000
    assert total(resident, "shardmesh_node_window_bytes") == 0
    assert total(resident, "shardmesh_node_read_bytes_total") == total(resident, "shardmesh_node_resident_bytes")
    assert total(streaming, "shardmesh_node_resident_bytes") == 0
    assert total(streaming, "shardmesh_node_peak_weight_bytes") <= total(streaming, "shardmesh_node_window_bytes")
    assert total(streaming, "shardmesh_node_read_bytes_total") > 4 * total(streaming, "shardmesh_node_window_bytes")


def test_a_session_that_fails_over_grpc_is_counted(sliced: SlicedModel) -> None:
    """The node counts a failure whatever transport it came over."""
    node = RunningNode(sliced.node_config(metrics_port=0))
    try:
        with grpc.insecure_channel(node.address, options=channel_options()) as channel:
            client = GrpcShardClient(channel, "node 0")
            with pytest.raises(ProtocolError):
                ask(client, open_sequence(1))
            client.close()
        assert total(scraped(node), "shardmesh_node_failures_total", reason="PROTOCOL") == 1
    finally:
        node.close()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("part", ["node", "coordinator"])
def test_promtool_has_nothing_to_say(pages: Pages, part: str) -> None:
    """Prometheus's own linter finds no fault with the pages."""
    page = pages.nodes[0] if part == "node" else pages.coordinator
    ours = [line for line in page.splitlines() if MADE_BY_THE_LIBRARY not in line]
    result = subprocess.run(
        ["promtool", "check", "metrics"], input="\n".join(ours) + "\n", capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")

"""How do nodes, requests and models stand at this moment? Put together for whoever looks on.

Covers: what heartbeats, requests under way, rounds and nodes themselves tell, as one message. Does not cover: asking
nodes (node_looks.py), counting rounds (ranks/round_watch.py), how it reads (cli/top_screen.py).
Threads: any.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import psutil

from common.machine.operating_system import own_rss_bytes
from coordinator.membership.reach import is_alive
from coordinator.membership.services import node_messages
from coordinator.membership.state import MeshState
from coordinator.models.records import LoadedModel, LoadedModels
from coordinator.models.served import models_of, served_by
from coordinator.program.generation_service import Generator
from coordinator.program.node_looks import NodeLook, NodeLooks
from coordinator.ranks.round_watch import LatelyRounds
from coordinator.ranks.transports.carriers import Carrier
from protos.shardmesh.v1 import mesh_pb2, observe_pb2

if TYPE_CHECKING:  # what answers take comes with it
    from coordinator.answering.answer_stream import AnswerStream

RATE_SECONDS = 10.0
"""Over which rates are taken."""


class Overviews:
    """Puts them together."""

    def __init__(self, state: MeshState, generator: Generator, looks: NodeLooks) -> None:
        self._state, self._generator, self._looks = state, generator, looks
        self._records = LoadedModels(state.directory)
        self._lock = threading.Lock()
        self._tokens: deque[tuple[float, int]] = deque()

    def now(self) -> observe_pb2.OverviewResponse:
        """Return how everything stands. Waits for no node."""
        now = time.perf_counter()
        looks, rounds, models = self._looks.latest(), self._generator.watch.look(now), models_of(self._records)
        answers, carriers = self._generator.under_way(), self._generator.explaining.carriers()
        return observe_pb2.OverviewResponse(
            mesh_name=self._state.name,
            nodes=[
                _node(node, models, looks.get(node.name), rounds, carriers.get(node.name))
                for node in node_messages(self._state.members)
            ],
            requests=[_request(stream, now) for stream in answers.streams], most_requests=answers.most,
            tokens_per_second=self._token_rate(answers.token_count, now), open_model=self._generator.watch.model,
            memory=observe_pb2.ObservedMemory(
                rss_bytes=own_rss_bytes(), machine_bytes=psutil.virtual_memory().total
            ),
            rounds_per_second=rounds.round_count / rounds.seconds if rounds.seconds > 0 else 0.0,
        )  # fmt: skip

    def _token_rate(self, count: int, now: float) -> float:
        """Return tokens a second between the first and the last look of the last seconds."""
        with self._lock:
            while self._tokens and self._tokens[0][0] < now - RATE_SECONDS:
                self._tokens.popleft()
            self._tokens.append((now, count))
            first_at, first = self._tokens[0]
        return (count - first) / (now - first_at) if now > first_at else 0.0


def _node(
    node: mesh_pb2.Node, models: list[LoadedModel], look: NodeLook | None, rounds: LatelyRounds,
    carrier: Carrier | None,
) -> observe_pb2.ObservedNode:  # fmt: skip
    found = observe_pb2.ObservedNode(
        name=node.name, silent_seconds=node.silent_seconds, is_up=is_alive(node), rank=-1, read_bytes_per_second=-1,
        last_share=-1,
    )  # fmt: skip
    served = served_by(node, models)
    if served is not None:
        found.model, found.rank, found.world_size = served
    if look is not None and found.is_up:
        stats = look.stats
        found.memory.CopyFrom(observe_pb2.ObservedMemory(
            rss_bytes=stats.rss_bytes, budget_bytes=node.device.budget_bytes, machine_bytes=node.device.memory_bytes,
            window_bytes=stats.window_bytes, resident_bytes=stats.resident_bytes, kv_bytes=stats.kv_bytes,
            kv_budget_bytes=stats.kv_budget_bytes, page_cache_bytes=stats.page_cache_bytes,
        ))  # fmt: skip
        if look.read_bytes_per_second is not None:
            found.read_bytes_per_second = look.read_bytes_per_second
    lately = rounds.nodes.get(node.name)
    if lately is not None:
        found.round_seconds = lately.seconds / lately.round_count
        found.last_share = lately.last_count / lately.round_count
    if carrier is not None:
        found.rounds_over, found.frames_failed, found.rounds_port = carrier
    return found


def _request(stream: AnswerStream, now: float) -> observe_pb2.ObservedRequest:
    found = observe_pb2.ObservedRequest(
        request_id=stream.ask.request_id, model=stream.ask.model, state=observe_pb2.OBSERVED_STATE_WAITING,
        most_answer_tokens=stream.ask.most_tokens, age_seconds=now - stream.asked_at,
    )  # fmt: skip
    if (prepared := stream.prepared) is None:
        return found
    sequence = prepared.sequence
    found.model, found.prompt_token_count = prepared.model.name, len(sequence.prompt_ids)
    found.answer_token_count = len(sequence.generated_ids)
    found.read_token_count = min(sequence.computed_count, len(sequence.prompt_ids))
    if found.answer_token_count:
        found.state = observe_pb2.OBSERVED_STATE_ANSWERING
        found.tokens_per_second = lately_per_second(stream.timings.seconds_per_token, now - stream.last_at)
    elif stream.is_running:
        found.state = observe_pb2.OBSERVED_STATE_READING
    return found


def lately_per_second(seconds_per_token: list[float], idle_seconds: float) -> float:
    """Return the rate of one answer's tokens over the last RATE_SECONDS; 0 before the second token.

    Args: seconds_per_token: the newest last; idle_seconds: since the newest, which counts once it is longer than any
    of them took: an answer that has come to a stop falls to 0 slowly.
    """
    taken, total = 0, 0.0
    longest = 0.0
    for seconds in reversed(seconds_per_token):
        if taken and total + seconds > RATE_SECONDS:
            break
        taken, total, longest = taken + 1, total + seconds, max(longest, seconds)
    spent = total + max(0.0, idle_seconds - longest)
    return taken / spent if spent > 0 else 0.0

"""What is known of the sweeps of the model that was asked last, as whoever asks "why is it slow?" needs it.

    explaining.opened(name, ranks.path, "float32")       # each time a model is opened
    explaining.explain(20.0)                             # from any thread

Covers: which sweeps count, means of their middle half: what held up a few sweeps in passing would else be in all of
them, and in what is advised. Means and no medians, since parts are to add up. Does not cover: what is kept
(ranks/path_watch.py), advice (advice.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from common.errors import InputError
from protos.shardmesh.v1 import observe_pb2

if TYPE_CHECKING:  # numpy comes with them, which a coordinator without a model has no use for
    from coordinator.ranks.path_facts import NodeWork, SweepFacts
    from coordinator.ranks.path_watch import PathWatch
    from coordinator.ranks.transports.carriers import Carrier

DEFAULT_SECONDS = 20.0


class Explaining:
    """Knows whose sweeps there are."""

    def __init__(self) -> None:
        self._opened: tuple[str, PathWatch, str] | None = None

    def opened(self, model: str, path: PathWatch, wire_dtype: str) -> None:
        """Take the path of the model that is open from now on."""
        self._opened = (model, path, wire_dtype)

    def carriers(self) -> dict[str, Carrier]:
        """Return what carries rounds now, by node; nodes without a session are not in it. From any thread."""
        opened = self._opened
        if opened is None or not opened[1].is_open:
            return {}
        return dict(zip(opened[1].labels, opened[1].carriers, strict=False))

    def explain(self, seconds: float) -> observe_pb2.ExplainResponse:
        """Return where the last sweeps' time went.

        Args: seconds: how far back; 0: DEFAULT_SECONDS.
        Raises: InputError: that is no such time.
        """
        if not 0 <= seconds < 1e9:
            raise InputError("--seconds is the time to look at, above 0")
        opened = self._opened
        facts = [] if opened is None else _that_count(opened[1].facts(), seconds or DEFAULT_SECONDS)
        if opened is None or not facts:
            return observe_pb2.ExplainResponse()
        model, path, wire_dtype = opened
        ago, observed, sweep_count = time.perf_counter() - facts[-1].at, facts[-1].at - facts[0].at, len(facts)
        facts = _middle_half(facts)
        response = observe_pb2.ExplainResponse(
            model=model, seconds_ago=ago, sweep_count=sweep_count, observed_seconds=observed,
            sweep_seconds=_mean(one.seconds for one in facts),
            token_count=_mean(one.token_count for one in facts),
            parts=_parts(path.labels, [one.parts for one in facts]),
            halved_bytes_gain_seconds=_mean(one.halved_gain for one in facts), wire_dtype=wire_dtype,
            own_starved_share=path.own_starved_share,
        )  # fmt: skip
        for rank, label in enumerate(path.labels):
            way, gains = path.ways[rank], [_of_rank(one, rank) for one in facts]
            response.nodes.append(_node(label, [one.nodes[rank] for one in facts], _parts(path.labels, gains)))
            response.nodes[rank].round_trip_seconds = way.round_trip_seconds
            response.nodes[rank].bytes_per_second = way.bytes_per_second
        for node, carrier in zip(response.nodes, path.carriers, strict=False):
            node.rounds_over, node.frames_failed, node.rounds_port = carrier
        return response


def _that_count(facts: Sequence[SweepFacts], seconds: float) -> list[SweepFacts]:
    """Return the sweeps of the last seconds: those of answers alone, where there are any."""
    recent = [one for one in facts if facts[-1].at - one.at <= seconds]
    return [one for one in recent if one.token_count == one.row_count] or recent


def _middle_half(facts: Sequence[SweepFacts]) -> list[SweepFacts]:
    """Return the sweeps that were neither among the quickest quarter nor among the slowest."""
    left_out = len(facts) // 4
    return sorted(facts, key=lambda one: one.seconds)[left_out : len(facts) - left_out]


def _node(
    label: str, work: Sequence[NodeWork], gains: Sequence[observe_pb2.ExplainedPart]
) -> observe_pb2.ExplainedNode:
    return observe_pb2.ExplainedNode(
        node=label, gains=gains, processor_seconds=_mean(one.processor for one in work),
        core_wait_seconds=_mean(one.core_wait for one in work), disk_seconds=_mean(one.disk for one in work),
        queue_seconds=_mean(one.queue for one in work), byte_count=_mean(one.byte_count for one in work),
    )  # fmt: skip


def _of_rank(facts: SweepFacts, rank: int) -> dict[tuple[int, str], float]:
    return {key: seconds for key, seconds in facts.gains.items() if key[0] == rank}


def _parts(labels: Sequence[str], each: Sequence[dict[tuple[int, str], float]]) -> list[observe_pb2.ExplainedPart]:
    """Return means by node and cause, the largest first."""
    sums: dict[tuple[int, str], float] = {}
    for parts in each:
        for key, seconds in parts.items():
            sums[key] = sums.get(key, 0.0) + seconds
    return [
        observe_pb2.ExplainedPart(node="" if rank < 0 else labels[rank], cause=cause, seconds=total / len(each))
        for (rank, cause), total in sorted(sums.items(), key=lambda item: -item[1]) if total > 0
    ]  # fmt: skip


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)

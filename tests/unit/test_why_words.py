"""Is a person told in one or two sentences what bounds tokens/s, of whom, and what would help most?

Covers: coordinator/cli/why_words.py, coordinator/answering/explaining.py. Does not cover: what is true
(tests/observed/test_why.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import InputError
from coordinator.answering.explaining import Explaining
from coordinator.cli.why_words import bound_of, sentences
from coordinator.ranks.path_series import PathSeries
from coordinator.ranks.path_watch import PathWatch
from coordinator.ranks.round_record import RankRound, RoundRecord
from coordinator.ranks.round_series import RoundSeries

PARTS = [("kitchen", "disk", 0.4), ("attic", "processor", 0.1), ("kitchen", "link", 0.05), ("", "coordinator", 0.1)]
ADVICE = [
    {"text": "1.2 GB more budget there (--memory-budget 2.20GB)", "saved_seconds": 0.4},
    {"text": "one more node like attic", "saved_seconds": 0.025},
    {"text": "a third thing", "saved_seconds": 0.02},
]


def found(**others: Any) -> dict[str, Any]:
    """Return what `why --json` would print."""
    usual: dict[str, Any] = {
        "sweep_count": 3, "bound": bound_of(PARTS), "seconds_per_sweep": 0.65, "seconds_ago": 0.2,
        "tokens_per_second": 1.54, "advice": [],
    }  # fmt: skip
    return {**usual, **others}


def test_the_largest_cause_is_named_with_whose_it_is() -> None:
    """And its share; then the two things that help most."""
    assert sentences(found(advice=ADVICE)) == (
        "kitchen's disk: 62 % of each token's 0.65 s, 1.5 tokens/s. 1.2 GB more budget there (--memory-budget 2.20GB) "
        "would take 0.40 s off; one more node like attic, 25 ms."
    )
    alike = [ADVICE[0], {**ADVICE[1], "saved_seconds": 0.37}]
    assert sentences(found(advice=alike)).endswith(
        "(--memory-budget 2.20GB), or one more node like attic, would take about 0.37 s off."
    )


def test_nodes_that_share_a_cause_are_named_together() -> None:
    """Not those with next to nothing of it."""
    parts = [("a", "processor", 0.3), ("b", "processor", 0.3), ("c", "processor", 0.01), ("a", "disk", 0.35)]
    assert bound_of(parts)["node_names"] == ["b", "a"]
    assert bound_of(parts)["text"] == "b and a's processor"


def test_where_nobody_knows_what_helps_that_is_said() -> None:
    """It is not the same as that nothing would."""
    said = sentences(found(no_advice="kitchen is not reachable; is its shardnode running?"))
    assert said.endswith("What would help cannot be said: kitchen is not reachable; is its shardnode running?")
    assert "Nothing" not in said


def test_where_nothing_helps_that_is_said() -> None:
    """And where the coordinator itself is what is waited for, whether it lacks a core."""
    own = [("", "coordinator", 0.9), ("a", "disk", 0.1)]
    said = sentences(found(bound=bound_of(own)))
    assert said.startswith("the coordinator's own work")
    assert said.endswith("Nothing that is known here would make it much quicker.")
    assert bound_of(own, 0.5)["text"] == "the coordinator, whose threads wait for a core"


def rounds(node: str, port: int | None = None, *, failed: bool = True) -> dict[str, Any]:
    """Return what carries a node's rounds, as `why --json` prints it."""
    return {"node": node, "rounds_over": "grpc", "frames_failed": failed, "rounds_port": port}


def test_a_node_that_bounds_over_grpc_is_told_what_is_in_the_way() -> None:
    """Its port where it has one, with what to do; nothing of others, nor where gRPC was asked for."""
    link = bound_of([("kitchen", "link", 0.6), ("attic", "processor", 0.1)])
    over = [rounds("kitchen", 50061), rounds("attic", 50061)]
    said = sentences(found(bound=link, rounds=over, advice=ADVICE[:1]))
    assert said.startswith(
        "kitchen's link: 86 % of each token's 0.65 s, 1.5 tokens/s. Rounds to kitchen go over gRPC, since its port for "
        "rounds (50061) is not reached: let it through its firewall, or give its shardnode another --rounds-port. 1.2"
    )
    assert "attic" not in said
    assert "has no port for rounds: give" in sentences(found(bound=link, rounds=[rounds("kitchen")]))
    assert "gRPC" not in sentences(found(bound=link, rounds=[rounds("kitchen", 50061, failed=False)]))
    assert "gRPC" not in sentences(found(rounds=over)), "a disk is not slower for it"


def test_the_coordinators_own_work_is_dearer_over_grpc_whoever_has_it() -> None:
    """A sentence for each of three at most."""
    own = bound_of([("", "coordinator", 0.6), ("attic", "processor", 0.1)])
    said = sentences(found(bound=own, rounds=[rounds(name, 50061) for name in "abcd"]))
    assert said.count("go over gRPC") == 3


def test_sweeps_of_prompts_and_of_long_ago_are_called_so() -> None:
    """Nobody takes them for tokens of now."""
    said = sentences(found(tokens_per_second=0.0, seconds_ago=130.0))
    assert "62 % of each part of a prompt's 0.65 s (as it was 2 minutes ago; nothing has run since)." in said
    assert "(as it was 12 seconds ago; nothing has run since)" in sentences(found(seconds_ago=12.4))
    assert "ago" not in sentences(found(seconds_ago=2.9))
    assert "ago" not in sentences(found(seconds_per_sweep=20.0, seconds_ago=39.0))


def test_before_anybody_has_asked_a_person_is_told_what_to_do() -> None:
    """There is nothing to explain yet."""
    response = Explaining().explain(0.0)
    assert (response.model, response.sweep_count) == ("", 0)
    assert "ask one" in sentences({"sweep_count": 0})
    with pytest.raises(InputError):
        Explaining().explain(-1.0)


def swept(watch: PathWatch, rows: int, tokens: int) -> None:
    """Have a node take part in a sweep of one round: half a second, of which its disk took four tenths."""
    watch.begin(rows)
    part = RankRound(0, 0.5, 0, 400_000_000, sent_bytes=100, received_bytes=100, handling_nanoseconds=450_000_000)
    watch.observe([RoundRecord(
        sweep_id=1, sequence_ids=(1,), kind="ffn", layer=0, layer_count=1, row_count=rows, started=0.0, sent=0.0,
        finished=0.5, parts=(part,), slowest=part,
    )])  # fmt: skip
    watch.swept(0.6, row_count=rows, token_count=tokens)


def test_sweeps_of_answers_count_and_prompts_only_where_there_are_no_others() -> None:
    """All that is told are means of a sweep, and parts add up to it."""
    explaining, watch = Explaining(), PathWatch(["kitchen"], RoundSeries().path)
    explaining.opened("small", watch, "float32")
    assert explaining.explain(5.0).sweep_count == 0
    swept(watch, 40, 1)
    assert (explaining.explain(5.0).sweep_count, explaining.explain(5.0).model) == (1, "small")
    watch._looked_at = 0.0
    watch._is_close = True
    swept(watch, 1, 1)
    response = explaining.explain(5.0)
    assert (response.sweep_count, response.token_count) == (1, 1.0)
    assert sum(part.seconds for part in response.parts) == pytest.approx(response.sweep_seconds) == pytest.approx(0.6)
    assert (response.parts[0].node, response.parts[0].cause) == ("kitchen", "disk")
    assert {part.cause: part.seconds for part in response.nodes[0].gains}["disk"] == pytest.approx(0.4)


def test_sweeps_that_something_held_up_in_passing_are_left_out() -> None:
    """The middle half by time counts; how many there were, and since when, is said of all."""
    explaining, watch = Explaining(), PathWatch(["kitchen"], RoundSeries().path)
    explaining.opened("small", watch, "float32")
    for number in range(8):
        watch._looked_at = 0.0
        watch.begin(1)
        swept(watch, 1, 1)
        watch._facts[-1] = watch._facts[-1]._replace(seconds=0.6 if number < 6 else 6.0)
    response = explaining.explain(100.0)
    assert (response.sweep_count, response.sweep_seconds) == (8, pytest.approx(0.6))


def counted(series: PathSeries) -> dict[tuple[str, str], float]:
    """Return the counters' values by node and cause."""
    (family,) = series.critical_path_seconds.collect()
    return {(one.labels["node"], one.labels["cause"]): one.value for one in family.samples}


def test_counters_have_every_cause_from_the_start_and_add_up() -> None:
    """A rate of a cause that was never seen is 0, and not nothing; node and cause are the only labels."""
    series = RoundSeries().path
    watch = PathWatch(["kitchen"], series)
    nodes = {("kitchen", cause): 0.0 for cause in ("disk", "processor", "core_wait", "queue", "link")}
    assert counted(series) == {**nodes, ("", "coordinator"): 0.0}
    swept(watch, 1, 1)
    assert sum(counted(series).values()) == pytest.approx(0.6)
    assert watch.seconds_by_node()["kitchen"]["disk"] == pytest.approx(0.4)


def test_sweeps_between_two_that_are_looked_at_are_taken_to_be_like_them() -> None:
    """A quick mesh has a hundred a second: seconds add up, and nothing of their rounds is asked for."""
    series = RoundSeries().path
    watch = PathWatch(["kitchen"], series)
    swept(watch, 1, 1)
    assert watch.is_looking
    watch.begin(1)
    assert not watch.is_looking
    watch.swept(0.3, row_count=1, token_count=1)
    assert sum(counted(series).values()) == pytest.approx(0.9)
    assert counted(series)["kitchen", "disk"] == pytest.approx(0.4 * 1.5)
    assert len(watch.facts()) == 1
    watch.begin(40)
    assert watch.is_looking, "a prompt is not like a token"

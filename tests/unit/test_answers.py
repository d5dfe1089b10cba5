"""Does everybody who asks get events in order and one end, whatever others ask, cancel or leave unread?

Covers: coordinator/answering/{answers,answer_stream,requests}.py over models without nodes (tests/support/fake_models).
Does not cover: ranks that are lost, the end of the program (test_answers_lost.py), stop texts letter by letter
(test_text_stream.py), protocols (tests/contract).
"""

from __future__ import annotations

import pytest

from common.errors import (
    InputError,
    KvBudgetExceeded,
    ModelNotFound,
    NodeFault,
    NodeLost,
    PromptTooLong,
    ResourceError,
)
from coordinator.answering.answer_stream import AnswerStream, Ended, Prepared
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Ask, Failed, Finished, Notice, Started, Token, prepare
from coordinator.answering.under_way import MOST_ASKED
from tests.support.fake_mesh import fake_identity
from tests.support.fake_models import (
    FakeModels,
    Letters,
    alone,
    answering,
    arrive,
    make_ask,
    reason_of,
    text_of,
    wait_for_hold,
)
from tests.support.series_totals import total_of
from tests.support.waiting import wait_until

PROMPTS = ["HELLO", "A", "MANYLETTERS", "B"]


def outcomes(answers: Answers, outcome: str) -> float:
    """Return how many requests ended so."""
    registry = answers._series.registry
    if outcome == "error":
        return total_of(registry, "shardmesh_request_failures_total")
    return total_of(registry, "shardmesh_request_success_total", finished_reason=outcome)


def test_an_answer_is_started_then_tokens_then_finished() -> None:
    """The prompt's tokens come first, then each token with its text, last the end with times and everybody's memory."""
    with answering(FakeModels("m")) as answers:
        events = list(answers.ask(make_ask("HELLO", length=6)))
        assert events[0] == Started(model="m", prompt_token_ids=(7, 4, 11, 11, 14))
        assert all(isinstance(event, Token) for event in events[1:-1])
        assert len(events) == 8
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert (finished.reason, text_of(events)) == ("length", alone("HELLO", 6))
        assert finished.timings.ttft_seconds > 0
        assert len(finished.timings.seconds_per_token) == 5
        assert finished.memory == {"coordinator": {"rss_bytes": 1}}
        assert outcomes(answers, "length") == 1


def test_an_end_token_ends_the_answer_and_has_no_text() -> None:
    """What the model says to end with is counted as a token and, being special, not printed."""
    source, whole = FakeModels("m"), alone("HELLO", 9)
    last = whole[4]
    source.tokenizer = Letters([ord(last) - ord("A")])
    with answering(source) as answers:
        events = list(answers.ask(make_ask("HELLO", length=9)))
    assert (reason_of(events), text_of(events)) == ("stop", whole[: whole.index(last)])


def test_answers_that_are_made_together_have_the_texts_of_each_alone() -> None:
    """Four ask before the first sweep, and one model is opened once."""
    source = FakeModels("m")
    source.may_prepare.clear()
    with answering(source) as answers:
        streams = [answers.ask(make_ask(prompt, length=4 + length)) for length, prompt in enumerate(PROMPTS)]
        source.may_prepare.set()
        texts = [text_of(list(stream)) for stream in streams]
    assert texts == [alone(prompt, 4 + length) for length, prompt in enumerate(PROMPTS)]
    assert source.opened_names == ["m"]


def test_once_nothing_runs_the_ranks_hold_nothing() -> None:
    """Nobody has to ask again for the room of the last answer to be free, and nobody waits for it to be."""
    source = FakeModels("m")
    with answering(source) as answers:
        list(answers.ask(make_ask("HELLO", length=5)))
        mesh = source.opened[0].mesh
        wait_until(lambda: not any(client.open for client in mesh.clients), limit_seconds=10, what="all are closed")
        assert mesh.waits_between_rounds == []


def test_what_does_not_fit_at_once_waits_for_room() -> None:
    """Ranks with room for one sequence or two: ten are answered all the same."""
    source = FakeModels("m", kv_budget_bytes=fake_identity(2).spec.kv_bytes(2, 24))
    with answering(source) as answers:
        streams = [answers.ask(make_ask("ABCDEFGH", length=10)) for _ in range(10)]
        assert {text_of(list(stream)) for stream in streams} == {alone("ABCDEFGH", 10)}


def test_sixteen_may_be_under_way_and_no_more() -> None:
    """The seventeenth is refused, at once; when one has ended there is room for the next, however it ended."""
    source = FakeModels("m")
    source.may_prepare.clear()
    with answering(source) as answers:
        streams = [answers.ask(make_ask("AB", length=2, model="m" if number else "unknown"))
                   for number in range(MOST_ASKED)]  # fmt: skip
        with pytest.raises(ResourceError, match="16 requests are under way"):
            answers.ask(make_ask("AB", length=2))
        source.may_prepare.set()
        ended = [list(stream)[-1] for stream in streams]
        assert [isinstance(event, Failed) for event in ended] == [True] + [False] * (MOST_ASKED - 1)
        again = [answers.ask(make_ask("AB", length=2)) for _ in range(MOST_ASKED)]
        assert {text_of(list(stream)) for stream in again} == {alone("AB", 2)}


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (make_ask("AB", length=3, model="unknown"), ModelNotFound),
        (make_ask("AB", length=0), InputError),
        (make_ask("AB", length=5000), PromptTooLong),
        (make_ask("AB", length=3000), KvBudgetExceeded),
    ],
)
def test_a_request_that_cannot_be_fails_alone(ask: Ask, error: type[Exception]) -> None:
    """Whether it is found while it is prepared or when it is to run: one event says why, others are answered."""
    source = FakeModels("m", kv_budget_bytes=fake_identity(2).spec.kv_bytes(2, 100))
    with answering(source) as answers:
        good, bad = answers.ask(make_ask("HELLO", length=5)), answers.ask(ask)
        with pytest.raises(error):
            text_of(list(bad))
        assert text_of(list(good)) == alone("HELLO", 5)
        assert (outcomes(answers, "error"), outcomes(answers, "length")) == (1, 1)


def test_what_is_cancelled_while_it_is_prepared_never_runs() -> None:
    """Its model is not even opened."""
    source = FakeModels("m")
    source.may_prepare.clear()
    with answering(source) as answers:
        stream = answers.ask(make_ask("AB", length=900))
        assert source.is_preparing.wait(10)
        stream.cancel()
        source.may_prepare.set()
        events = list(stream)
        assert (reason_of(events), text_of(events)) == ("cancelled", "")
        assert source.opened == []
        assert text_of(list(answers.ask(make_ask("AB", length=3)))) == alone("AB", 3)


def test_what_is_cancelled_while_it_runs_ends_within_a_sweep() -> None:
    """Others are not disturbed; to cancel what has ended does nothing."""
    source = FakeModels("m")
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 30)
    with answering(source) as answers:
        long = answers.ask(make_ask("AB", length=3000))
        wait_for_hold(source)
        short = answers.ask(make_ask("HELLO", length=20))
        long.cancel()
        source.opened[0].mesh.clients[0].go_on()
        events = list(long)
        assert reason_of(events) == "cancelled"
        assert 0 < len(text_of(events)) < 20
        long.cancel()
        assert text_of(list(short)) == alone("HELLO", 20)


def test_what_is_cancelled_while_it_waits_for_its_model_ends_at_once() -> None:
    """It does not wait for its turn to be told."""
    source = FakeModels("a", "b")
    with answering(source) as answers:
        running = arrive(answers, source, make_ask("HELLO", length=4000, model="a"))
        waiting = arrive(answers, source, make_ask("HELLO", length=9, model="b"))
        waiting.cancel()
        assert reason_of(list(waiting)) == "cancelled"
        assert running.prepared is not None
        assert running.prepared.sequence.finish_reason is None
        running.cancel()
        assert reason_of(list(running)) == "cancelled"
    assert source.opened_names == ["a"]


def test_another_model_waits_until_nothing_runs_and_nobody_overtakes_it() -> None:
    """While one is answered a second model is asked for, then the first again: each is opened in its turn."""
    source = FakeModels("a", "b")
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 9)
    with answering(source) as answers:
        streams = [answers.ask(make_ask("HELLO", length=9, model="a"))]
        wait_for_hold(source)
        source.before_open = lambda mesh: None
        streams += [arrive(answers, source, make_ask("HELLO", length=9, model=name)) for name in ("b", "a", "b")]
        streams[3].cancel()
        assert source.opened_names == ["a"]
        source.opened[0].mesh.clients[0].go_on()
        assert {text_of(list(stream)) for stream in streams[:3]} == {alone("HELLO", 9)}
        assert reason_of(list(streams[3])) == "cancelled"
    assert source.opened_names == ["a", "b", "a"]


def test_a_consumer_that_never_reads_holds_nobody_up() -> None:
    """Its answer is made and kept for it; another is read meanwhile, and its own may be read later."""
    with answering(FakeModels("m")) as answers:
        unread = answers.ask(make_ask("HELLO", length=30))
        assert text_of(list(answers.ask(make_ask("AB", length=60)))) == alone("AB", 60)
        assert text_of(list(unread)) == alone("HELLO", 30)


def test_a_stop_text_ends_the_answer_and_its_making() -> None:
    """What comes before it is the answer; the engine is told, long before the length that was asked for."""
    whole = alone("HELLO", 40)
    stop = whole[20:23]
    with answering(FakeModels("m")) as answers:
        stream = answers.ask(make_ask("HELLO", length=4000, stop=("not in it", stop)))
        events = list(stream)
        assert (reason_of(events), text_of(events)) == ("stop", whole[: whole.index(stop)])
        assert stream.prepared is not None
        assert len(stream.prepared.sequence.generated_ids) < 4000
        assert outcomes(answers, "stop") == 1


def test_a_stop_text_that_is_complete_only_at_the_end_is_a_stop_too() -> None:
    """A newline as a byte of its own is held back until the answer is over; its end is no less a stop."""
    tokenizer = Letters()
    tokenizer.byte_token_ids = frozenset({5})
    ask = make_ask("A", length=2, stop=("F",))
    sequence = prepare(ask, tokenizer, fake_identity(1).spec)
    stream = AnswerStream(ask=ask, withdraw=lambda stream, reason: None)
    stream.put(Prepared(model=FakeModels("m").models["m"], sequence=sequence, tokenizer=tokenizer))
    for news in (7, 5, Ended(reason="length", memory=dict)):
        stream.put(news)
    events = list(stream)
    assert (reason_of(events), text_of(events)) == ("stop", "H")


def test_a_sentence_about_a_slow_node_reaches_all_who_wait() -> None:
    """Whoever runs is told, and the answer goes on."""
    source = FakeModels("m")
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 20)
    with answering(source) as answers:
        stream = answers.ask(make_ask("HELLO", length=9))
        wait_for_hold(source)
        source.told[0]("node 1 is slow")
        source.opened[0].mesh.clients[0].go_on()
        events = list(stream)
    assert Notice(text="node 1 is slow") in events
    assert text_of(events) == alone("HELLO", 9)


@pytest.mark.parametrize(("change", "error"), [("refuses", KvBudgetExceeded), ("spoils", NodeFault)])
def test_what_befalls_one_sequence_is_that_answers_end_alone(change: str, error: type[Exception]) -> None:
    """A rank refuses one of four, or its numbers are not finite: three answers are what they are alone."""
    source = FakeModels("m")
    value = {2} if change == "refuses" else {2: ("ffn", 0)}
    source.before_open = lambda mesh: (
        setattr(mesh.clients[1], change, value), setattr(mesh.clients[0], "holds_at", 2)
    )  # fmt: skip
    with answering(source) as answers:
        streams = [arrive(answers, source, make_ask(prompt, length=20, model="m")) for prompt in PROMPTS]
        wait_for_hold(source)
        source.opened[0].mesh.clients[0].go_on()
        ended = [list(stream) for stream in streams]
        failed = [events[-1].error for events in ended if isinstance(events[-1], Failed)]
        assert [type(one) for one in failed] == [error]
        texts = [text_of(events) for events in ended if not isinstance(events[-1], Failed)]
        assert set(texts) < {alone(prompt, 20) for prompt in PROMPTS}
        assert len(texts) == 3
        assert source.opened_names == ["m"]


def test_a_model_that_cannot_be_opened_fails_who_asked_and_the_next_may_have_luck() -> None:
    """A node is not there; a moment later it is."""
    source = FakeModels("m")
    source.before_open = lambda mesh: setattr(mesh.clients[1], "dies_at", 1)
    with answering(source) as answers:
        with pytest.raises(NodeLost, match="node 1 has died"):
            text_of(list(answers.ask(make_ask("HELLO", length=5))))
        source.before_open = lambda mesh: None
        assert text_of(list(answers.ask(make_ask("HELLO", length=5)))) == alone("HELLO", 5)

"""What becomes of answers when ranks are lost, come back or do not, and when the program ends?

Covers: coordinator/answering/answers.py over models without nodes. Does not cover: answers that nothing befalls
(test_answers.py), the replay itself (tests/property/test_schedule.py), how a lost node is found (tests/contract).
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from common.errors import NodeError, NodeLost, NoSuchNode
from coordinator.answering import answers as answers_module
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answer_stream import AnswerStream
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Event, Failed, Notice, Token
from tests.support.fake_mesh import FakeMesh
from tests.support.fake_models import FakeModels, alone, answering, arrive, make_ask, reason_of, text_of, wait_for_hold
from tests.support.series_totals import total_of
from tests.support.waiting import wait_until


def dying(source: FakeModels, *numbers: int | None) -> None:
    """Have rank 1 die at these messages, by opening; the openings after them live."""
    left = list(numbers)

    def before_open(mesh: FakeMesh) -> None:
        mesh.clients[1].dies_at = left.pop(0) if left else None

    source.before_open = before_open


def replayed(answers: Answers) -> float:
    """Return how many answers went on after a loss."""
    return answers._series.requests.replayed.value


@pytest.mark.parametrize("dies_at", [6, 9, 40])
def test_ranks_that_are_lost_and_back_leave_the_same_tokens(dies_at: int) -> None:
    """Whoever waits is told in a sentence, no token is told twice, and the text is as if nothing had been."""
    source = FakeModels("m")
    dying(source, dies_at)
    with answering(source) as answers:
        streams = [answers.ask(make_ask(prompt, length=20)) for prompt in ("HELLO", "AB", "C")]
        ended = [list(stream) for stream in streams]
        assert [text_of(events) for events in ended] == [alone(prompt, 20) for prompt in ("HELLO", "AB", "C")]
        assert all(sum(isinstance(event, Token) for event in events) == 20 for events in ended)
        notices = [event.text for events in ended for event in events if isinstance(event, Notice)]
        assert set(notices) == {"node 1 has died; it is there again, and the answer goes on"}
        assert replayed(answers) == len(notices)
    assert source.opened_names == ["m", "m"]
    assert source.opened[0].is_closed


def test_ranks_that_are_lost_again_and_again_are_good_for_an_answer_as_long_as_they_sweep() -> None:
    """Each life gets a little farther than the one before."""
    source = FakeModels("m")
    dying(source, 8, 14, 20, 26)
    with answering(source) as answers:
        assert text_of(list(answers.ask(make_ask("HELLO", length=20)))) == alone("HELLO", 20)
    assert len(source.opened) == 5


def test_ranks_that_do_not_come_back_end_what_runs_and_the_next_request_opens_others() -> None:
    """Everybody is told what was lost first, not how the second try failed."""
    source = FakeModels("m")
    dying(source, 9)
    source.before_reopen = lambda: setattr(
        source, "before_open", lambda mesh: setattr(mesh.clients[0], "dies_at", 1)
    )  # fmt: skip
    with answering(source) as answers:
        streams = [arrive(answers, source, make_ask(prompt, length=20, model="m")) for prompt in ("HELLO", "AB")]
        ended = [list(stream)[-1] for stream in streams]
        assert [type(event) for event in ended] == [Failed, Failed]
        assert all("node 1 has died" in str(event.error) for event in ended if isinstance(event, Failed))
        assert replayed(answers) == 0
        source.before_reopen, source.before_open = (lambda: None), (lambda mesh: None)
        assert text_of(list(answers.ask(make_ask("C", length=5)))) == alone("C", 5)


def test_ranks_that_are_lost_before_they_have_swept_are_not_tried_for_ever() -> None:
    """They open, and die in their first round: once is bad luck, twice is the end of what runs."""
    source = FakeModels("m")
    dying(source, 9, *[2] * 50)
    with answering(source) as answers, pytest.raises(NodeLost, match="node 1 has died"):
        text_of(list(answers.ask(make_ask("HELLO", length=20))))
    assert source.opened_names == ["m", "m"]


def test_where_nodes_are_known_to_be_gone_nobody_tries() -> None:
    """What a source knows to be gone is not opened again for an answer that runs."""
    source = FakeModels("m")
    source.is_back = False
    dying(source, 9)
    with answering(source) as answers:
        with pytest.raises(NodeLost, match="node 1 has died"):
            text_of(list(answers.ask(make_ask("HELLO", length=20))))
        assert source.opened_names == ["m"]


def test_ranks_that_died_while_nothing_ran_are_opened_again_without_a_word() -> None:
    """Who asks after a rest has waited for nothing yet, so there is nothing to tell and nothing that is replayed."""
    source = FakeModels("m")
    with answering(source) as answers:
        assert text_of(list(answers.ask(make_ask("HELLO", length=5)))) == alone("HELLO", 5)
        client = source.opened[0].mesh.clients[1]
        client.dies_at = client.messages.total() + 2  # the message of the end, then the first one of what comes next
        events = list(answers.ask(make_ask("AB", length=5)))
        assert text_of(events) == alone("AB", 5)
        assert not any(isinstance(event, Notice) for event in events)
        assert replayed(answers) == 0
    assert source.opened_names == ["m", "m"]


def test_what_the_ranks_that_came_back_have_no_room_for_ends_and_the_rest_goes_on() -> None:
    """Other ranks, less room: the long answer fails, the short one has its text."""
    source = FakeModels("m")
    dying(source, 9)
    source.before_reopen = lambda: setattr(source, "kv_budget_bytes", source.kv_bytes(30))
    with answering(source) as answers:
        long = arrive(answers, source, make_ask("HELLO", length=40, model="m"))
        short = arrive(answers, source, make_ask("AB", length=20, model="m"))
        assert text_of(list(short)) == alone("AB", 20)
        last = list(long)[-1]
        assert isinstance(last, Failed)
        assert "node 0" in str(last.error)


def test_a_node_that_is_removed_ends_what_it_serves_and_nothing_else() -> None:
    """Its model's requests are told; others, and removals of nodes that nobody uses, go on."""
    source = FakeModels("a", "b")
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 9)
    with answering(source) as answers:
        first = arrive(answers, source, make_ask("HELLO", length=20, model="a"))
        wait_for_hold(source)
        source.before_open = lambda mesh: None
        second = arrive(answers, source, make_ask("AB", length=5, model="b"))
        answers.let_go("somebody")
        answers.let_go("a-0")
        source.opened[0].mesh.clients[0].go_on()
        with pytest.raises(NoSuchNode, match="a-0 was removed from the mesh"):
            text_of(list(first))
        assert text_of(list(second)) == alone("AB", 5)


def test_the_end_of_the_program_ends_all_that_runs_waits_or_is_prepared() -> None:
    """A round under way is broken off; nobody waits for events that never come, and nobody may ask any more."""
    source = FakeModels("a", "b")
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 9)
    answers = Answers(source, AnswerSeries())
    running = arrive(answers, source, make_ask("HELLO", length=20, model="a"))
    wait_for_hold(source)
    waiting = arrive(answers, source, make_ask("HELLO", length=20, model="b"))
    source.may_prepare.clear()
    preparing = [answers.ask(make_ask("HELLO", length=20, model="a")) for _ in range(4)]  # of which two are begun
    assert source.is_preparing.wait(10)
    answers.close()
    source.may_prepare.set()
    for stream in (running, waiting, *preparing):
        last: Event = list(stream)[-1]
        assert isinstance(last, Failed)
        assert isinstance(last.error, NodeError)
    with pytest.raises(NodeError, match="is ending"):
        answers.ask(make_ask("A", length=1))
    assert source.opened_names == ["a"]
    assert source.opened[0].is_closed
    answers.close()


def test_answers_under_way_are_completed_before_the_program_ends() -> None:
    """Running, waiting or prepared: all that were taken; nobody else is from then on."""
    source = FakeModels("m")
    source.may_prepare.clear()
    with answering(source) as answers, ThreadPoolExecutor(1) as pool:
        streams = [answers.ask(make_ask(prompt, length=9)) for prompt in ("HELLO", "AB", "C")]
        draining = pool.submit(answers.drain, 60)
        wait_until(lambda: answers._asked._is_refusing, limit_seconds=10, what="it drains")
        with pytest.raises(NodeError, match="the coordinator is ending; ask again when it is back"):
            answers.ask(make_ask("A", length=1))
        assert not draining.done()
        source.may_prepare.set()
        assert [text_of(list(stream)) for stream in streams] == [alone(prompt, 9) for prompt in ("HELLO", "AB", "C")]
        draining.result(10)


def test_answers_that_take_longer_than_a_program_may_wait_end_in_words() -> None:
    """Whether a sweep hangs or a request was not even prepared."""
    source = FakeModels("m")
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 9)
    with answering(source) as answers:
        running = answers.ask(make_ask("HELLO", length=20))
        wait_for_hold(source)
        source.may_prepare.clear()
        preparing = answers.ask(make_ask("HELLO", length=20))
        answers.drain(0.01)
        for stream in (running, preparing):
            with pytest.raises(NodeError, match=r"told to end, and the answer was not complete within 0.01 s"):
                text_of(list(stream))


def test_an_answer_that_ends_with_the_program_is_counted_once() -> None:
    """Each request has one outcome, also where it is told of by two sides."""
    source = FakeModels("m")
    source.may_prepare.clear()
    answers = Answers(source, AnswerSeries())
    streams = [answers.ask(make_ask("HELLO", length=2, model="m" if number else "unknown")) for number in range(3)]
    assert source.is_preparing.wait(10)
    answers.close()
    source.may_prepare.set()
    assert all(isinstance(list(stream)[-1], Failed) for stream in streams)
    answers._preparing.shutdown(wait=True)
    assert total_of(answers._series.registry, "shardmesh_request_failures_total") == 3


def test_an_end_while_nothing_runs_is_no_error() -> None:
    """Open ranks are closed, and the last answer stays what it was."""
    source = FakeModels("m")
    with answering(source) as answers:
        events = list(answers.ask(make_ask("HELLO", length=5)))
    assert (reason_of(events), text_of(events)) == ("length", alone("HELLO", 5))


def test_an_answer_that_is_complete_does_not_fail_any_more() -> None:
    """Its stop text has come, so whoever asked has all of it: what is lost before the engine hears is no news."""
    ask = make_ask("A", length=9, stop=("C",))
    source, withdrawn = FakeModels("m"), list[str]()
    stream = AnswerStream(ask=ask, withdraw=lambda stream, reason: withdrawn.append(reason))
    stream.put(source.prepare(ask))
    for news in (1, 2, 3, NodeLost("node 1 has died")):
        stream.put(news)
    events = list(stream)
    assert (reason_of(events), text_of(events), withdrawn) == ("stop", "B", ["stop"])


def test_whoever_waits_for_a_model_that_a_node_does_not_open_hears_of_the_end_in_time() -> None:
    """Opening may wait for a node for minutes; the end of the program does not."""
    source, may_open = FakeModels("a"), threading.Event()
    is_opening = threading.Event()

    def wait_for_a_node(mesh: FakeMesh) -> None:
        is_opening.set()
        may_open.wait(60)

    source.before_open = wait_for_a_node
    answers = Answers(source, AnswerSeries())
    stream = arrive(answers, source, make_ask("HELLO", length=20, model="a"))
    assert is_opening.wait(10)
    with mock.patch.object(answers_module, "END_SECONDS", 0.01):
        answers.close()
    last = list(stream)[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, NodeError)
    may_open.set()
    answers.close()

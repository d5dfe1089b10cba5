"""Are requests counted under the right model, whatever callers say, and waiting ones beside those that run?

Covers: coordinator/answering/request_series.py as answers over fake ranks move it. Does not cover: values of a true run
(tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

import random

import pytest
from prometheus_client import generate_latest

from common.errors import QueueFull
from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Failed
from coordinator.answering.under_way import MOST_ASKED
from tests.support.fake_models import FakeModels, answering, make_ask, text_of, wait_for_hold
from tests.support.metrics_pages import label_values
from tests.support.series_totals import total_of

ODD = ["m ", "M", "../m", "m\n", "\x00", 'm",node="attic', "{}", "名前", "m" * 5000]


def page_of(answers: Answers) -> str:
    """Return the page of their series."""
    return generate_latest(answers._series.registry).decode()


def odd_name(draw: random.Random) -> str:
    """Return what no model is called."""
    return draw.choice(ODD) if draw.random() < 0.1 else f"model-{draw.getrandbits(64):x}"


def test_labels_stay_bounded_when_ten_thousand_requests_with_odd_names_arrive() -> None:
    """Each is counted, under no name; the page has no line more than after the first of them."""
    draw = random.Random(7)
    with answering(FakeModels("m")) as answers:
        text_of(list(answers.ask(make_ask("AB", length=2, model="m"))))
        assert isinstance(list(answers.ask(make_ask("AB", length=2, model=odd_name(draw))))[-1], Failed)
        lines = len(page_of(answers).splitlines())
        for _ in range(9_999 // MOST_ASKED):
            streams = [answers.ask(make_ask("AB", length=2, model=odd_name(draw))) for _ in range(MOST_ASKED)]
            assert all(isinstance(list(stream)[-1], Failed) for stream in streams)
        page, registry = page_of(answers), answers._series.registry
        failed = total_of(registry, "shardmesh_request_failures_total", model="", reason="MODEL_NOT_FOUND")
        assert failed == 1 + 9_999 // MOST_ASKED * MOST_ASKED
        assert len(page.splitlines()) == lines
        assert label_values(page)["model"] == {"m", ""}


def test_requests_beyond_the_most_are_counted_by_model_and_never_by_a_callers_words() -> None:
    """Queue full is a reason of its own, for the model that was asked, if there is such a one."""
    source = FakeModels("m")
    with answering(source) as answers:
        text_of(list(answers.ask(make_ask("AB", length=2, model="m"))))
        source.may_prepare.clear()
        streams = [answers.ask(make_ask("AB", length=2, model="m")) for _ in range(MOST_ASKED)]
        for model in ("m", "", "odd", "m"):
            with pytest.raises(QueueFull):
                answers.ask(make_ask("AB", length=2, model=model))
        registry = answers._series.registry
        full = {model: total_of(registry, "shardmesh_request_failures_total", reason="QUEUE_FULL", model=model)
                for model in ("m", "", "odd")}  # fmt: skip
        assert full == {"m": 3, "": 1, "odd": 0}
        assert total_of(registry, "shardmesh_num_requests_waiting") == MOST_ASKED
        assert total_of(registry, "shardmesh_requests_limit") == MOST_ASKED
        source.may_prepare.set()
        assert len({text_of(list(stream)) for stream in streams}) == 1
        assert total_of(registry, "shardmesh_num_requests_waiting") == 0


def test_a_request_waits_until_nodes_have_rows_of_it() -> None:
    """One answers and one waits for room; the gauges say so under the model's name."""
    source = FakeModels("m")
    source.kv_budget_bytes = source.kv_bytes(30)
    source.before_open = lambda mesh: setattr(mesh.clients[0], "holds_at", 9)
    with answering(source) as answers:
        streams = [answers.ask(make_ask("HELLO", length=20)) for _ in range(2)]
        wait_for_hold(source)
        registry = answers._series.registry
        assert total_of(registry, "shardmesh_num_requests_running", model="m") == 1
        source.opened[0].mesh.clients[0].go_on()
        assert all(text_of(list(stream)) for stream in streams)
        queue = total_of(registry, "shardmesh_request_queue_time_seconds_count", model="m")
        assert queue == total_of(registry, "shardmesh_time_to_first_token_seconds_count", model="m") == 2
        assert total_of(registry, "shardmesh_num_requests_running", model="m") == 0


def test_the_parts_of_an_answers_time_add_up() -> None:
    """Queue and prefill make the first token; with decode they are the whole."""
    with answering(FakeModels("m")) as answers:
        text_of(list(answers.ask(make_ask("HELLO", length=9))))
        registry = answers._series.registry

        def seconds(stem: str) -> float:
            return total_of(registry, f"shardmesh_{stem}_seconds_sum", model="m")

        first = seconds("time_to_first_token")
        assert seconds("request_queue_time") + seconds("request_prefill_time") == pytest.approx(first)
        assert seconds("inter_token_latency") == pytest.approx(seconds("request_decode_time"))
        assert first + seconds("request_decode_time") == pytest.approx(seconds("e2e_request_latency"))


def test_a_models_series_come_with_it_at_zero_and_go_with_it() -> None:
    """So that a first failure shows as a rise; one that answers still keeps them."""
    series, loaded = AnswerSeries(), {"small", "large"}
    requests = series.requests
    requests.loaded = lambda: loaded
    tokens = requests.of("small").generation_tokens
    requests.opened("small", lambda: 0.5)
    loaded.remove("small")
    tokens.value += 3
    page = generate_latest(series.registry).decode()
    assert 'shardmesh_generation_tokens_total{model="small"} 3.0' in page
    assert 'shardmesh_kv_cache_usage_ratio{model="small"} 0.5' in page
    assert 'shardmesh_request_failures_total{model="large",reason="NODE_LOST"} 0.0' in page
    requests.closed()
    generate_latest(series.registry)
    assert label_values(generate_latest(series.registry).decode())["model"] == {"large"}
    assert (requests.named("large"), requests.named(""), requests.named("small")) == ("large", "large", "")
    loaded.add("small")  # and one that comes again counts from nothing, where the page sees it
    again = requests.of("small")
    again.generation_tokens.value += 2
    again.whole.observe(1.0)
    page = generate_latest(series.registry).decode()
    assert 'shardmesh_generation_tokens_total{model="small"} 2.0' in page
    assert 'shardmesh_e2e_request_latency_seconds_count{model="small"} 1.0' in page
    assert 'shardmesh_request_failures_total{model="small",reason="NODE_LOST"} 0.0' in page

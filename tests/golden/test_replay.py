"""Does an answer go on as if nothing had been when its nodes are lost and come back: the same ones, or new ones?

Covers: prompts and answers computed again, at any point, several at once, drawn and greedy; with sliding windows and
with rotary scaling that depends on the length. Does not cover: nodes that stay away (tests/contract, tests/e2e).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from coordinator.answering.answer_series import AnswerSeries
from coordinator.answering.answers import Answers
from coordinator.answering.requests import Notice, Token
from coordinator.engine.sampler import Sampler
from coordinator.engine.sampling_params import SamplingParams
from coordinator.models.local_model import LocalModel
from tests.support.asking import Reopening, asked
from tests.support.mesh import ThreadNodes, run_options, sliced, thread_nodes
from tests.support.random_models import ROPES, build, save

LENGTH, LAYERS = 48, 2
PROMPTS = [[(7 * i * i + 11 * seed + i) % 320 for i in range(length)] for seed, length in enumerate((3, 17, 40))]
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"family": "qwen3"},
    "window": {"family": "mistral", "sliding_window": 12},
    "dynamic": {"family": "llama", "rope": ROPES["dynamic"], "max_position_embeddings": 32},
}


@pytest.fixture(scope="module", params=[(name, count) for name in MODELS for count in (1, 2)], ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    """Return a model cut for one node, which runs whole layers, and for two."""
    name, world_size = request.param
    directory = tmp_path_factory.mktemp("replay")
    path = save(build(layers=LAYERS, **MODELS[name]), directory / "model", tokenizer=False)
    with sliced(path, directory / "slices", world_size=world_size, tile_bytes=8192) as made:
        yield made


def answers_of(model: LocalModel, losses: dict[int, str]) -> tuple[list[list[int]], int]:
    """Return the tokens of three answers, and how many times the caller was told that one went on.

    Args: losses: by token of the first answer: whether the connections break then, or the nodes are started anew.
    """
    with thread_nodes(model, memory_window=2) as nodes:
        series = AnswerSeries()
        source = Reopening(model, run_options(2, nodes.addresses), series)
        with closing(Answers(source, series)) as answers:
            samplers = [Sampler(SamplingParams(temperature=0.8 * seed, top_p=1), seed) for seed in range(len(PROMPTS))]
            streams = [
                iter(asked(answers, model, prompt, length=LENGTH, sampler=sampler))
                for prompt, sampler in zip(PROMPTS, samplers, strict=True)
            ]
            found: list[list[int]] = [[] for _ in PROMPTS]
            told = 0
            for stream, token_ids in zip(streams, found, strict=True):
                for event in stream:
                    told += isinstance(event, Notice)
                    if isinstance(event, Token):
                        token_ids.append(event.token_id)
                        if token_ids is found[0] and len(token_ids) in losses:
                            _lose(source, nodes, losses[len(token_ids)])
    return found, told


def _lose(source: Reopening, nodes: ThreadNodes, how: str) -> None:
    if how == "broken":
        source.opened[-1].interrupt()
    else:
        nodes.restart()


def test_answers_go_on_where_they_were(model: LocalModel) -> None:
    """Twice broken off and once with nodes that know nothing: token for token as without."""
    expected, never = answers_of(model, {})
    assert never == 0
    found, told = answers_of(model, {2: "broken", 11: "restarted", 40: "broken"})
    assert found == expected
    assert told >= 3

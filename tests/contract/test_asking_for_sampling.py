"""Do all options of how tokens are chosen reach a running coordinator, and is what makes no sense refused by name?

Covers: GenerationService and `generate --coordinator`, both with programs of earlier builds, which know none of the
newer options. Does not cover: what is chosen by them (tests/property/test_choices.py, tests/unit/test_sampler.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from common.errors import EXIT_INPUT, NodeFault
from common.wire.rpc import channel_options
from coordinator.answering.requests import Event
from coordinator.program import generation_service
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc
from tests.support.cli import run_here
from tests.support.loaded_mesh import LoadedMesh

LENGTH = 6
MOST_TEXT = 200
"""Letters of a refusal, whatever was sent."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedMesh]:
    """Return a mesh that has a model."""
    with LoadedMesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def asked(mesh: LoadedMesh, **options: Any) -> list[generation_pb2.GenerateResponse]:
    """Return what the coordinator answers to a message. Raises: grpc.RpcError."""
    given = {"prompt": "hi", "length": LENGTH, "top_p": 1.0, "ignore_eos": True, **options}
    with grpc.insecure_channel(f"unix:{mesh.state}/coordinator.sock", options=channel_options()) as channel:
        request = generation_pb2.GenerateRequest(**given)
        return list(generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=60))


def tokens_in(responses: list[generation_pb2.GenerateResponse]) -> list[int]:
    """Return an answer's tokens."""
    return [one.token.token_id for one in responses if one.WhichOneof("part") == "token"]


def test_how_tokens_are_chosen_travels_and_how_likely_they_were_comes_back(
    mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A token with a bias of 100 is all that is said, until it is penalized; what makes no sense is refused by name."""
    words = ["generate", "--coordinator", f"unix:{mesh.state}/coordinator.sock", "--prompt", "hi"]

    def tokens(*options: str) -> list[int]:
        finished = run_here(
            "coordinator-cli", [*words, "--length", "6", "--ignore-eos", "--json", *options], monkeypatch, capfd
        )
        assert finished.code == 0, finished.err
        document = json.loads(finished.out)
        told = document.get("logprobs", [])
        assert [len(one["likeliest"]) for one in told] == ([2] * 6 if "--logprobs" in options else [])
        assert all(one["likeliest"][0]["logprob"] >= one["logprob"] for one in told)
        return list(document["token_ids"])

    greedy = tokens("--temperature", "0", "--logprobs", "2")
    biased = ("--temperature", "0", "--logit-bias", "40=100")
    assert tokens(*biased) == [40] * 6 != greedy
    assert tokens(*biased, "--repetition-penalty", "100", "--frequency-penalty", "2") != [40] * 6
    assert tokens("--temperature", "9", "--min-p", "1") == greedy
    for option, reason in (
        ("--min-p 2", "--min-p is 2.0"), ("--logit-bias 40", "--logit-bias is '40'"), ("--logprobs 1", "is for --json"),
        ("--logit-bias 999999=1", "--logit-bias names token 999999"),
    ):  # fmt: skip
        finished = run_here("coordinator-cli", [*words, *option.split()], monkeypatch, capfd)
        assert (finished.code, reason in finished.err) == (EXIT_INPUT, True), finished.err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": math.nan}, "--temperature is nan"),
        ({"temperature": math.inf}, "--temperature is inf"),
        ({"top_p": math.nan}, "--p is nan"),
        ({"min_p": math.nan}, "--min-p is nan"),
        ({"min_p": -1e-300}, "--min-p is -1e-300"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty is 0.0"),
        ({"repetition_penalty": 1e308}, "--repetition-penalty is 1e+308"),
        ({"repetition_penalty": math.nan}, "--repetition-penalty is nan"),
        ({"presence_penalty": math.inf}, "--presence-penalty is inf"),
        ({"frequency_penalty": -math.nan}, "--frequency-penalty is nan"),
        ({"logit_bias": {3: math.nan}}, "--logit-bias is 3=nan"),
        ({"logit_bias": {-1: 1.0}}, "--logit-bias is -1=1.0"),
        ({"logit_bias": {(1 << 31) - 1: 1.0}}, "--logit-bias names token 2147483647"),
        ({"logit_bias": dict.fromkeys(range(200_000), 1.0)}, "--logit-bias is given for 200000 tokens"),
        ({"logprobs": -1}, "--logprobs is -1"),
        ({"logprobs": (1 << 31) - 1}, "--logprobs is 2147483647"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_that_makes_no_sense_is_refused_by_name(
    mesh: LoadedMesh, options: dict[str, Any], reason: str
) -> None:
    """As INVALID_ARGUMENT, in one short line."""
    with pytest.raises(grpc.RpcError) as refused:
        asked(mesh, **options)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    text = refused.value.details()
    assert text.startswith(reason), text
    assert "\n" not in text
    assert len(text) < MOST_TEXT


def test_what_an_older_program_does_not_set_changes_nothing(mesh: LoadedMesh) -> None:
    """Its answers have the tokens that options which are off have, and no likelihoods."""
    off = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {}}
    for options in ({"temperature": 0.0}, {"temperature": 1.5, "seed": 4, "top_p": 0.9}):
        older = asked(mesh, **options)
        assert tokens_in(older) == tokens_in(asked(mesh, **options, **off)) != []
        assert not any(one.token.HasField("logprob") for one in older)
    assert [
        len(one.token.likeliest) for one in asked(mesh, logprobs=0) if one.token.HasField("logprob")
    ] == [0] * LENGTH  # fmt: skip


def test_an_older_coordinator_is_not_believed_to_choose_as_it_is_asked(
    mesh: LoadedMesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would go on without the option and not say so; what it knows it is asked as before."""
    translated = generation_service._response

    def of_before(event: Event) -> generation_pb2.GenerateResponse:
        response = translated(event)
        if response.WhichOneof("part") == "started":
            response.started.ClearField("minds_further_sampling")
        return response

    monkeypatch.setattr(generation_service, "_response", of_before)
    words = ["generate", "--coordinator", f"unix:{mesh.state}/coordinator.sock", "--prompt", "hi", "--length", "2"]
    assert run_here("coordinator-cli", [*words, "--k", "3", "--repetition-penalty", "1"], monkeypatch, capfd).code == 0
    for option, value in (
        ("--min-p", "0.1"), ("--repetition-penalty", "1.1"), ("--presence-penalty", "1"), ("--frequency-penalty", "1"),
        ("--logit-bias", "3=1"), ("--logprobs", "0"),
    ):  # fmt: skip
        finished = run_here("coordinator-cli", [*words, "--json", option, value], monkeypatch, capfd)
        assert (finished.code, finished.out) == (NodeFault.exit_code, "")
        assert f"is of an older version, which has no {option}; restart it" in finished.err

"""Asks a running coordinator and writes the answer as it comes.

Covers: `generate --coordinator`. Does not cover: nodes of this command's own (answer_here.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import grpc

from common.errors import NodeFault, NodeLost, ShardmeshError
from common.program.request_id import REQUEST_ID_KEY
from common.trust.tls import secure_channel
from common.wire.reaching import wait_until_reached
from common.wire.rpc import channel_options, error_from_rpc
from coordinator.answering.requests import Event, Failed, Finished, Notice, Reading, Started, Token
from coordinator.cli.answer_output import write_events, write_json, write_report
from coordinator.cli.answer_screen import AnswerScreen
from coordinator.engine.likelihoods import Likelihoods
from coordinator.engine.timings import Timings
from coordinator.membership.state import open_mesh_state
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc

REACH_SECONDS = 4.0
COORDINATOR = "the coordinator"


def ask_coordinator(
    address: str, state_directory: Path, request: generation_pb2.GenerateRequest, screen: AnswerScreen, *,
    json_output: bool, request_id: str = "",
) -> None:  # fmt: skip
    """Send one request and write its answer.

    Args: address: host:port, over mutual TLS with the identity in `state_directory`; or unix:/path of its socket;
    request_id: what logs are to call it; empty: what the coordinator makes up.
    Raises: NodeLost: nobody answers there; what the coordinator answers instead of text.
    """
    if address.startswith("unix:"):
        channel = grpc.insecure_channel(address, options=channel_options())
    else:
        state = open_mesh_state(state_directory)
        channel = secure_channel(address, state.identity(), state.peer)
    screen.wait("asking the coordinator")
    with channel:
        wait_until_reached(
            channel, REACH_SECONDS,
            f"no coordinator of this mesh answers at {address}; is it running, and is the address right?",
        )  # fmt: skip
        named = ((REQUEST_ID_KEY, request_id),) if request_id else ()
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, metadata=named)
        try:
            answer = write_events(_events(stream, _further_options(request)), screen)
        finally:
            stream.cancel()
    screen.clear()
    if json_output:
        write_json(answer)
    else:
        write_report(answer)


def _events(stream: Iterable[generation_pb2.GenerateResponse], further: Sequence[str] = ()) -> Iterator[Event]:
    """Yield what arrives as events; the last one is Finished or Failed.

    Args: further: options that a coordinator of an earlier build would choose without, and not say so.
    """
    try:
        for response in stream:
            part = response.WhichOneof("part")
            if part == "started":
                started = response.started
                if further and not started.minds_further_sampling:
                    yield Failed(error=NodeFault(f"the coordinator that runs is of an older version, which has no "
                                                 f"{further[0]}; restart it (coordinator, or systemctl restart "
                                                 "coordinator), or leave it out"))  # fmt: skip
                    return
                yield Started(model=started.model, prompt_token_ids=tuple(started.prompt_token_ids))
            elif part == "reading":
                reading = response.reading
                yield Reading(read_count=reading.read_token_count, prompt_count=reading.prompt_token_count)
            elif part == "token":
                token = response.token
                yield Token(token_id=token.token_id, text=token.text, likelihoods=_likelihoods(token))
            elif part == "notice":
                yield Notice(text=response.notice.text)
            elif part == "finished":
                finished = response.finished
                timings = Timings(
                    ttft_seconds=finished.ttft_seconds, seconds_per_token=list(finished.seconds_per_token)
                )  # fmt: skip
                memory = {name: dict(one.values) for name, one in _ordered(finished)}
                yield Finished(reason=finished.finish_reason, text=finished.text, timings=timings, memory=memory)
                return
        yield Failed(error=NodeLost("the coordinator ended in the middle of the answer"))
    except grpc.RpcError as error:
        yield Failed(error=_without_place(error_from_rpc(error, COORDINATOR)))


def _ordered(finished: generation_pb2.GenerationFinished) -> list[tuple[str, generation_pb2.ProcessMemory]]:
    """Return the processes as they are always named: the coordinator, then nodes by rank."""
    return sorted(finished.memory.items(), key=lambda item: (item[0] != "coordinator", len(item[0]), item[0]))


def _without_place(error: ShardmeshError) -> ShardmeshError:
    """Return an error as the coordinator has worded it, which names who failed itself; its own end with what to do."""
    text = str(error).removeprefix(f"{COORDINATOR}: ")
    if text.startswith(f"{COORDINATOR} is gone"):
        return NodeLost(f"{COORDINATOR} ended in the middle of the answer; start it again (coordinator, or systemctl "
                        "start coordinator) and ask again")  # fmt: skip
    return type(error)(text)


def _further_options(request: generation_pb2.GenerateRequest) -> list[str]:
    """Return those options of how tokens are chosen that coordinators of earlier builds know nothing of, if set."""
    is_set = {
        "--min-p": request.min_p != 0,
        "--repetition-penalty": request.HasField("repetition_penalty") and request.repetition_penalty != 1,
        "--presence-penalty": request.presence_penalty != 0,
        "--frequency-penalty": request.frequency_penalty != 0,
        "--logit-bias": bool(request.logit_bias),
        "--logprobs": request.HasField("logprobs"),
    }
    return [option for option, is_wanted in is_set.items() if is_wanted]


def _likelihoods(token: generation_pb2.GeneratedToken) -> Likelihoods | None:
    if not token.HasField("logprob"):
        return None
    return Likelihoods(token.logprob, tuple((likely.token_id, likely.logprob) for likely in token.likeliest))

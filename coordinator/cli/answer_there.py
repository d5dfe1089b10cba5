"""Asks a running coordinator and writes the answer as it comes. Imports neither torch nor a tokenizer.

Covers: `generate --coordinator`. Does not cover: nodes of this command's own (answer_here.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

from common.errors import NodeLost, ShardmeshError
from common.trust.tls import secure_channel
from common.wire.reaching import wait_until_reached
from common.wire.rpc import channel_options, error_from_rpc
from coordinator.cli.answer_output import Answer, write_json, write_notice, write_report, write_text
from coordinator.engine.timings import Timings
from coordinator.membership.state import open_mesh_state
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc

REACH_SECONDS = 4.0
COORDINATOR = "the coordinator"


def ask_coordinator(
    address: str, state_directory: Path, request: generation_pb2.GenerateRequest, *, json_output: bool
) -> None:
    """Send one request and write its answer.

    Args: address: host:port, over mutual TLS with the identity in `state_directory`; or unix:/path of its socket.
    Raises: NodeLost: nobody answers there; what the coordinator answers instead of text.
    """
    if address.startswith("unix:"):
        channel = grpc.insecure_channel(address, options=channel_options())
    else:
        state = open_mesh_state(state_directory)
        channel = secure_channel(address, state.identity(), state.peer)
    with channel:
        wait_until_reached(
            channel, REACH_SECONDS,
            f"no coordinator of this mesh answers at {address}; is it running, and is the address right?",
        )  # fmt: skip
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request)
        try:
            answer = _collect(stream, echo=not json_output)
        except grpc.RpcError as error:
            raise _without_place(error_from_rpc(error, COORDINATOR)) from error
        finally:
            stream.cancel()
    if json_output:
        write_json(answer)
    else:
        write_report(answer)


def _collect(stream: Iterable[generation_pb2.GenerateResponse], *, echo: bool) -> Answer:
    prompt_ids: list[int] = []
    token_ids: list[int] = []
    pieces: list[str] = []
    finished = None
    for response in _parts(stream, pieces if echo else []):
        part = response.WhichOneof("part")
        if part == "started":
            prompt_ids = list(response.started.prompt_token_ids)
        elif part == "token":
            token_ids.append(response.token.token_id)
            pieces.append(response.token.text)
        elif part == "notice":
            write_notice(response.notice.text)
        elif part == "finished":
            finished = response.finished
            pieces.append(finished.text + ("\n" if echo else ""))
        if echo and pieces and pieces[-1]:
            write_text(pieces.pop())
            pieces.append("")
    if finished is None:
        raise NodeLost("the coordinator ended in the middle of the answer")
    timings = Timings(ttft_seconds=finished.ttft_seconds, seconds_per_token=list(finished.seconds_per_token))
    return Answer(
        prompt_ids=prompt_ids, token_ids=token_ids, text="".join(pieces), finish_reason=finished.finish_reason,
        timings=timings, memory={name: dict(one.values) for name, one in _ordered(finished)},
    )  # fmt: skip


def _parts(
    stream: Iterable[generation_pb2.GenerateResponse], written: list[str]
) -> Iterator[generation_pb2.GenerateResponse]:
    """Yield what arrives; after a failure in the middle of a line, the line ends before the failure is told."""
    try:
        yield from stream
    except grpc.RpcError:
        if written:
            write_text("\n")
        raise


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

"""What a running coordinator answers its owner, asked in this process: no program has to start for a look.

    asking = OwnerAsking(Path(mesh.state))
    asking.answer("one two", length=8)

Covers: answers as `generate --coordinator unix:... --temperature 0 --ignore-eos` gives them.
Does not cover: the command line, TLS (both: tests/e2e).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from common.program.request_id import REQUEST_ID_KEY
from common.wire.rpc import channel_options
from coordinator.membership.state import SOCKET_FILE
from protos.shardmesh.v1 import generation_pb2, generation_pb2_grpc

LIMIT_SECONDS = 30.0
"""For a short answer on a busy machine; not a promise of the product."""


@dataclass(frozen=True, kw_only=True)
class OwnersAnswer:
    """An answer that came to its end."""

    token_ids: list[int]
    kv_bytes: dict[str, int]
    """What each node holds of keys and values, once the answer is complete."""


class OwnerAsking:
    """The owner of a mesh on this machine."""

    def __init__(self, state_directory: Path) -> None:
        self._state = state_directory

    def answer(self, prompt: str, *, length: int, model: str = "", request_id: str = "") -> OwnersAnswer:
        """Have a model answer, the only one by default. Raises: grpc.RpcError: it does not."""
        named = ((REQUEST_ID_KEY, request_id),) if request_id else ()
        request = generation_pb2.GenerateRequest(
            model=model, prompt=prompt, length=length, temperature=0, top_p=1, seed=42, ignore_eos=True
        )
        token_ids, finished = [], generation_pb2.GenerationFinished()
        with grpc.insecure_channel(f"unix:{self._state / SOCKET_FILE}", options=channel_options()) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            for response in stub.Generate(request, timeout=LIMIT_SECONDS, metadata=named):
                if response.WhichOneof("part") == "token":
                    token_ids.append(response.token.token_id)
                elif response.WhichOneof("part") == "finished":
                    finished = response.finished
        kept = {name: one.values["kv_bytes"] for name, one in finished.memory.items() if name != "coordinator"}
        return OwnersAnswer(token_ids=token_ids, kv_bytes=kept)

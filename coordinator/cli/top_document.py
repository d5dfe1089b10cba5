"""What does a coordinator tell of this moment, as a document? What `top --json` prints, and the screen is made of.

Does not cover: how it reads (top_screen.py), finding it out (coordinator/program/overview.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # gRPC's messages come with it, and --help must not wait for them
    from protos.shardmesh.v1 import observe_pb2

NODE_MEMORY = (
    "rss_bytes", "budget_bytes", "machine_bytes", "window_bytes", "resident_bytes", "kv_bytes", "kv_budget_bytes",
    "page_cache_bytes",
)  # fmt: skip
OR_UNKNOWN = ("budget_bytes", "machine_bytes", "kv_budget_bytes", "page_cache_bytes")
"""Of these 0 means that there is none, or that nobody knows."""


def document_of(overview: observe_pb2.OverviewResponse) -> dict[str, Any]:
    """Return an overview with names for numbers, and None for what is not known."""
    from protos.shardmesh.v1 import observe_pb2

    prefix = len("OBSERVED_STATE_")
    return {
        "mesh": overview.mesh_name, "open_model": overview.open_model or None,
        "tokens_per_second": overview.tokens_per_second, "rounds_per_second": overview.rounds_per_second,
        "most_requests": overview.most_requests,
        "coordinator": {"rss_bytes": overview.memory.rss_bytes, "machine_bytes": overview.memory.machine_bytes or None},
        "nodes": [_node(node) for node in overview.nodes],
        "requests": [
            {
                "request_id": one.request_id, "model": one.model or None,
                "state": observe_pb2.ObservedState.Name(one.state)[prefix:].lower(),
                "prompt_token_count": one.prompt_token_count, "read_token_count": one.read_token_count,
                "answer_token_count": one.answer_token_count, "most_answer_tokens": one.most_answer_tokens,
                "tokens_per_second": one.tokens_per_second, "age_seconds": one.age_seconds,
            }
            for one in overview.requests
        ],
    }  # fmt: skip


def _node(node: observe_pb2.ObservedNode) -> dict[str, Any]:
    is_known = node.HasField("memory")
    memory: dict[str, int | None] = {}
    for name in NODE_MEMORY:
        value: int = getattr(node.memory, name)
        memory[name] = value if is_known and (value or name not in OR_UNKNOWN) else None
    return {
        "name": node.name, "is_up": node.is_up,
        "silent_seconds": node.silent_seconds if node.silent_seconds >= 0 else None,
        "serves_model": node.model or None, "serves_rank": node.rank if node.rank >= 0 else None,
        "world_size": node.world_size or None, **memory,
        "read_bytes_per_second": node.read_bytes_per_second if node.read_bytes_per_second >= 0 else None,
        "round_seconds": node.round_seconds or None,
        "last_share": node.last_share if node.last_share >= 0 else None,
        "rounds_over": node.rounds_over or None, "frames_failed": node.frames_failed,
        "rounds_port": node.rounds_port or None,
    }  # fmt: skip

"""`coordinator-cli why`: what bounds tokens/s now, and what would help most."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import ShardmeshError
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.options import StateOption
from coordinator.cli.telling import say
from coordinator.cli.why_words import bound_of, sentences

if TYPE_CHECKING:  # they import gRPC, and --help must not wait for that
    from coordinator.answering.advice import Advice, Evidence, NodeEvidence
    from coordinator.membership.reach import MeshAccess
    from coordinator.models.records import LoadedModel
    from protos.shardmesh.v1 import mesh_pb2, observe_pb2

STATS_SECONDS = 4.0


def why(
    seconds: Annotated[float, typer.Option(help="How far back from the last token.", min=1.0)] = 20.0,
    state_dir: StateOption = None,
    json_output: JsonOption = False,
) -> None:
    """Say in one or two sentences what bounds tokens/s, and what would help most, by how much.

    It is about the last sweeps of the model that was asked last: ask while it answers. Nothing is measured for it.
    """
    from coordinator.membership.owner_client import OwnerClient
    from coordinator.membership.state import default_state_directory
    from coordinator.models.records import LoadedModels

    state = state_dir or default_state_directory()
    with OwnerClient(state) as owner:
        response = owner.explain(seconds)
    found = _found(response)
    if response.sweep_count:
        parts = [(part.node, part.cause, part.seconds) for part in response.parts]
        found["bound"] = bound_of(parts, response.own_starved_share)
        model = LoadedModels(state).find(response.model)
        if model is None or model.node_names != tuple(node.node for node in response.nodes):
            found["no_advice"] = "the model is not on these nodes any more"
        else:
            try:
                found["advice"] = [asdict(one) for one in _advice(state, model, response)]
            except ShardmeshError as error:  # a node cannot be asked what it has
                found["no_advice"] = str(error)
    found["said"] = sentences(found)
    if json_output:
        show_document(found)
    else:
        say(found["said"])


def _found(response: observe_pb2.ExplainResponse) -> dict[str, Any]:
    """Return what `--json` prints, but for what follows from it."""
    seconds = response.sweep_seconds
    return {
        "model": response.model or None, "sweep_count": response.sweep_count, "seconds_ago": response.seconds_ago,
        "seconds_per_sweep": seconds, "tokens_per_sweep": response.token_count,
        "tokens_per_second": response.token_count / seconds if seconds else 0.0,
        "parts": [
            {"node": part.node, "cause": part.cause, "seconds": part.seconds, "share": part.seconds / seconds}
            for part in response.parts
        ],
        "rounds": [
            {"node": node.node, "rounds_over": node.rounds_over or None, "frames_failed": node.frames_failed,
             "rounds_port": node.rounds_port or None}
            for node in response.nodes
        ],
        "bound": None, "advice": [], "no_advice": None,
    }  # fmt: skip


def _advice(state: Any, model: LoadedModel, response: observe_pb2.ExplainResponse) -> list[Advice]:
    """Return what would help. Raises: NodeError: a node does not answer."""
    from coordinator.answering.advice import advise
    from coordinator.membership.reach import owner_access

    return advise(_evidence(owner_access(state), model, response))


def _evidence(mesh: MeshAccess, model: LoadedModel, response: observe_pb2.ExplainResponse) -> Evidence:
    """Return what advice follows from. Raises: NodeError: a node does not answer."""
    from coordinator.answering.advice import Evidence

    members = {node.name: node for node in mesh.nodes()}
    return Evidence(
        seconds=response.sweep_seconds, parts=[(part.node, part.cause, part.seconds) for part in response.parts],
        nodes=[_node(mesh, members[node.node], node) for node in response.nodes if node.node in members],
        halved_gain=response.halved_bytes_gain_seconds, wire_dtype=response.wire_dtype, description=model.description,
        tiles_bytes=[
            sum(tile.byte_count for layout in one.layouts().values() for tile in layout.tiles)
            for one in model.slices()
        ],
    )  # fmt: skip


def _node(mesh: MeshAccess, member: mesh_pb2.Node, seen: observe_pb2.ExplainedNode) -> NodeEvidence:
    """Return what is known of a node. Raises: NodeError: it does not answer."""
    from coordinator.answering.advice import NodeEvidence
    from coordinator.planning.prediction import PROGRAM_BYTES
    from protos.shardmesh.v1 import shard_pb2, shard_pb2_grpc

    stats: shard_pb2.GetStatsResponse = mesh.ask(
        member.name, lambda to: shard_pb2_grpc.ShardServiceStub(to).GetStats, shard_pb2.GetStatsRequest(),
        STATS_SECONDS,
    )  # fmt: skip
    device = member.device
    return NodeEvidence(
        name=member.name, processor_seconds=seen.processor_seconds, core_wait_seconds=seen.core_wait_seconds,
        disk_seconds=seen.disk_seconds, byte_count=seen.byte_count,
        gains={part.cause: part.seconds for part in seen.gains}, round_trip_seconds=seen.round_trip_seconds,
        bytes_per_second=seen.bytes_per_second, resident_bytes=stats.resident_bytes,
        budget_bytes=device.budget_bytes, kv_bytes=stats.kv_budget_bytes, free_bytes=device.free_memory_bytes,
        disk_bytes=device.free_disk_bytes, program_bytes=device.program_bytes or PROGRAM_BYTES,
    )  # fmt: skip

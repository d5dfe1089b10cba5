"""Good messages for every method of protos/, and who may call it.

Covers: members, strangers with a token, the coordinator, the owner. Does not cover: sending them (calls.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf import symbol_database
from google.protobuf.message import Message

from common.trust.signing import make_key, make_request
from common.weights.slice_description import SliceDescription
from common.wire.rpc import PROTOCOL_VERSION
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.planning.outline import outline
from coordinator.ranks.identity import RanksIdentity
from protos.shardmesh.v1 import (
    generation_pb2,
    links_pb2,
    mesh_pb2,
    models_pb2,
    observe_pb2,
    shard_pb2,
    slices_pb2,
)
from tests.fuzz.attacked_mesh import (
    ENDED_KEY,
    LONE_OWNER,
    MEMBER,
    MODEL,
    OWNER,
    STRANGER,
    TO_KEEPING,
    TO_SERVING,
    AttackedMesh,
)
from tests.fuzz.sequences import joined
from tests.support.session_messages import (
    FFN,
    close_sequence,
    load_norms,
    open_sequence,
    open_session,
    random_rows,
    run_block,
    run_layers,
)
from tests.support.sliced_models import SlicedModel

SLOW, BRIEF = 0.01, 0.02
"""Shares of calls that start a process, and of those that last until their caller goes."""
LATER = b"\xa5" * 32
"""In seeds, for what is known once there is a mesh."""
FILES = (generation_pb2, links_pb2, mesh_pb2, models_pb2, observe_pb2, shard_pb2, slices_pb2)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One method as one kind of caller may call it."""

    path: str
    who: str
    message: type[Message]
    seeds: tuple[bytes, ...]
    """Each of one message or several (sequences.py)."""
    share: float
    before: Sequence[tuple[str, bytes]]
    """Calls of one message that make it possible."""
    told: Callable[[AttackedMesh], bytes] | None
    """What fields have instead of LATER."""


def all_calls(sliced: SlicedModel) -> Iterator[Call]:
    """Yield every method of protos/. Args: sliced: the model that is served. Raises: KeyError: one has no messages."""
    given = {**_of_nodes(sliced), **_of_slices(sliced), **_of_members(), **_of_owners()}
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                one = given.pop(f"{service.name}/{method.name}")
                message = symbol_database.Default().GetSymbol(method.input_type.full_name)
                yield one(path=f"/{service.full_name}/{method.name}", message=message)
    if given:
        raise KeyError(f"no methods: {sorted(given)}")


def _call(
    who: str, *seeds: Message | Sequence[Message], share: float = 0.3, before: Sequence[tuple[str, bytes]] = (),
    told: Callable[[AttackedMesh], bytes] | None = None,
) -> Callable[..., Call]:  # fmt: skip
    several = [[seed] if isinstance(seed, Message) else seed for seed in seeds]
    made = tuple(joined(one.SerializeToString() for one in messages) for messages in several)
    return partial(Call, who=who, seeds=made, share=share, before=before, told=told)


def _of_members() -> dict[str, Callable[..., Call]]:
    """Return the calls of nodes, and of those that would be some."""
    device = mesh_pb2.Device(protocol_version=PROTOCOL_VERSION, version="1", core_count=4, memory_bytes=8 << 30)
    asked = make_request(make_key())
    beat = mesh_pb2.HeartbeatRequest(
        device=device, listen="127.0.0.1:7", rank=-1, model_identity="x", metrics="http://127.0.0.1:8",
        sent_at_seconds=1.7e9, round_trip_seconds=0.1, authorities_digest=bytes(32),
        members=mesh_pb2.SignedMembers(content=json.dumps({"number": 1}).encode(), signature=bytes(70)),
    )  # fmt: skip
    return {
        "MeshService/Heartbeat": _call(MEMBER, beat, share=1.0),
        "MeshService/RenewCertificate": _call(
            MEMBER, mesh_pb2.RenewCertificateRequest(certificate_request=asked, authority_fingerprint=bytes(32))
        ),
        "JoinService/Join": _call(
            STRANGER, mesh_pb2.JoinRequest(secret=LATER, name="cellar", certificate_request=asked, device=device),
            told=AttackedMesh.secret, share=0.5,
        ),
        "JoinService/RenewEnded": _call(
            STRANGER, mesh_pb2.RenewEndedRequest(certificate=LATER, certificate_request=make_request(ENDED_KEY)),
            told=lambda mesh: mesh.ended.own.certificate,
        ),
    }  # fmt: skip


def _of_owners() -> dict[str, Callable[..., Call]]:
    """Return the calls over the owner's socket."""
    asked = make_request(make_key())
    ask = generation_pb2.GenerateRequest(model=MODEL, prompt="ab", length=3, temperature=1.0, top_p=0.5, stop=["x"])
    penalized = generation_pb2.GenerateRequest(
        model=MODEL, prompt="ab", length=3, temperature=1.0, top_p=0.5, min_p=0.1, repetition_penalty=1.5,
        presence_penalty=-0.5, frequency_penalty=0.25, logit_bias={40: -3.5}, logprobs=3,
    )  # fmt: skip
    answer = generation_pb2.GenerateRequest(model=MODEL, prompt="hello", length=2, top_p=1.0, ignore_eos=True)
    load = models_pb2.LoadModelRequest(path=b"/nowhere/model", name="m", nodes=["kitchen"], split_strategy="uniform")
    return {
        "OwnerService/Invite": _call(LONE_OWNER, mesh_pb2.InviteRequest(lifetime_seconds=60)),
        "OwnerService/InviteObserver": _call(
            LONE_OWNER, mesh_pb2.InviteObserverRequest(name="scraper", certificate_request=asked, valid_days=9)
        ),
        "OwnerService/RemoveNode": _call(LONE_OWNER, mesh_pb2.RemoveNodeRequest(name="scraper")),
        "OwnerService/RotateAuthority": _call(LONE_OWNER, mesh_pb2.RotateAuthorityRequest(begin=True), share=0.1),
        "OwnerService/ListNodes": _call(OWNER, mesh_pb2.ListNodesRequest(), share=0.05),
        "GenerationService/Generate": _call(OWNER, ask, penalized, answer, share=1.0),
        "ModelService/LoadModel": _call(LONE_OWNER, load, share=SLOW),
        "ModelService/CancelLoad": _call(LONE_OWNER, models_pb2.CancelLoadRequest(name="m")),
        "ModelService/UnloadModel": _call(LONE_OWNER, models_pb2.UnloadModelRequest(name="m")),
        "ModelService/ListLoads": _call(LONE_OWNER, models_pb2.ListLoadsRequest(), share=0.05),
        "ObserveService/Overview": _call(OWNER, observe_pb2.OverviewRequest(), share=0.05),
        "ObserveService/Explain": _call(OWNER, observe_pb2.ExplainRequest(seconds=5.0)),
        "ObserveService/Trace": _call(OWNER, observe_pb2.TraceRequest(seconds=0.5), share=BRIEF),
    }  # fmt: skip


def _of_nodes(sliced: SlicedModel) -> dict[str, Callable[..., Call]]:
    """Return the coordinator's calls of a node that serves."""
    begun = begun_session(identity_of(sliced))
    rows = random_rows(2, sliced.spec.hidden_size)
    sessions = [
        [*begun, run_block(3, rows), run_block(4, rows, kind=FFN), close_sequence(5)],
        [*begun, run_block(3, rows), run_block(4, random_rows(1, sliced.spec.hidden_size), segments=[(1, 2, 1)])],
        [*begun, load_norms(3, sliced.residual()), run_layers(4, rows), open_sequence(5, sequence_id=2)],
    ]
    echoes = [links_pb2.EchoRequest(payload=bytes(100), reply_bytes=100)] * 3
    return {
        "ShardService/Rounds": _call(TO_SERVING, *sessions, share=1.5),
        "ShardService/GetStats": _call(TO_SERVING, shard_pb2.GetStatsRequest(), share=0.05),
        "LinkService/Echo": _call(TO_SERVING, echoes, share=0.5),
        "LinkService/MeasureDevice": _call(TO_SERVING, links_pb2.MeasureDeviceRequest(), share=SLOW / 50),
    }


def identity_of(sliced: SlicedModel) -> RanksIdentity:
    """Return what a node that was sent the model takes itself for."""
    about = _description(sliced)
    return RanksIdentity(model_identity=about.model_identity, spec=about.spec, plan=about.plan, dtype=about.dtype)


def _description(sliced: SlicedModel) -> SliceDescription:
    with closing(open_checkpoint(sliced.directory)) as checkpoint:
        return outline(checkpoint).description()


def begun_session(identity: RanksIdentity) -> list[shard_pb2.RoundsRequest]:
    """Return the messages that every session begins with."""
    return [open_session(1, identity), open_sequence(2)]


def _of_slices(sliced: SlicedModel) -> dict[str, Callable[..., Call]]:
    """Return the coordinator's calls of a node that keeps slices."""
    manifest = sliced.manifest(0)
    description = json.dumps(SliceDescription.to_json(replace(manifest, files={}))).encode()
    slice_id, service = manifest.slice_id, "/shardmesh.v1.SliceService/"
    served = replace(_description(sliced), rank=0).slice_id
    offer = slices_pb2.OfferSliceRequest(description=description)
    offered = [(f"{service}OfferSlice", offer.SerializeToString())]
    name, entry = next(iter(sorted(manifest.files.items())))
    start = slices_pb2.FileStart(slice_id=slice_id, name=name)
    digests = slices_pb2.FileDigests(sha256=entry.sha256, tile_sha256=entry.tile_sha256)
    data = (sliced.slice_directory(0) / name).read_bytes()
    sent = [
        slices_pb2.SendFileRequest(start=start), slices_pb2.SendFileRequest(chunk=data[:1000]),
        slices_pb2.SendFileRequest(chunk=data[1000:]), slices_pb2.SendFileRequest(end=digests),
    ]  # fmt: skip
    return {
        "SliceService/ListSlices": _call(TO_KEEPING, slices_pb2.ListSlicesRequest(with_kept_tiles=True), share=0.05),
        "SliceService/OfferSlice": _call(TO_KEEPING, offer, share=0.5),
        "SliceService/SendFile": _call(TO_KEEPING, sent, share=0.7, before=offered),
        "SliceService/PublishSlice": _call(TO_SERVING, slices_pb2.PublishSliceRequest(slice_id=served)),
        "SliceService/ServeSlice": _call(TO_SERVING, slices_pb2.ServeSliceRequest(slice_id=served)),
        "SliceService/RemoveSlice": _call(
            TO_KEEPING, slices_pb2.RemoveSliceRequest(slice_id=slice_id),
            slices_pb2.RemoveSliceRequest(slice_id=slice_id, keep_tiles=True),
            slices_pb2.RemoveSliceRequest(model_identity=manifest.model_identity),
        ),
    }  # fmt: skip

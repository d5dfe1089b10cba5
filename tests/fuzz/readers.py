"""Everything of ours that reads what others made, each with good inputs to begin with.

Covers: weights, configs, vocabularies, templates, descriptions and manifests of slices, records, state, plans, frames,
messages of sessions and of asking. Does not cover: making inputs hostile (mutations.py), limits (runs.py).
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import InternalError, ShardmeshError
from common.model.plan import Plan
from common.weights.manifest import read_manifest
from common.weights.slice_description import SliceDescription
from common.wire.framing import FrameReader, send_frame
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.checkpoints.config_values import read_json_object
from coordinator.checkpoints.model_config import spec_from_config
from coordinator.membership.state import init_mesh, open_mesh_state
from coordinator.models.records import RECORD_FILE, LoadedModels
from coordinator.program import generation_service
from coordinator.tokenizer import Nursery, TokenizerApart, apart
from protos.shardmesh.v1 import generation_pb2, shard_pb2
from shardnode.sessions.session import Session
from shardnode.slices.slice_store import SliceStore
from shardnode.work.slice_at_work import ShardNode
from tests.fuzz.mutations import mutated
from tests.support.hostile_tokenizers import TEMPLATES, write_model
from tests.support.random_models import Format, build, save
from tests.support.session_messages import FFN, close_sequence, open_sequence, open_session, random_rows, run_block
from tests.support.sliced_models import slice_model
from tests.support.tokenizer_files import CHATS, byte_level_keys, byte_level_tokenizer_json, write_gguf

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One way in."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    """Takes one input. Raises: ShardmeshError, and nothing else."""
    share: float = 1.0
    """Of all inputs, as parts of the sum of shares: what starts processes is slow."""
    mutate: Callable[[bytes, random.Random], bytes] = mutated
    """Makes a hostile input out of a good one."""


def all_readers(directory: Path) -> list[Reader]:
    """Return them all. Args: directory: empty; theirs to write in."""
    return [*_weights(directory), *_texts(directory), *_slices(directory), *_state(directory), *_messages(directory)]


def _weights(directory: Path) -> Iterator[Reader]:
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401 - a gigabyte of addresses, which are not to count as the first file's
    formats: tuple[tuple[Format, str], ...] = (
        ("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin"), ("gguf", "model.gguf"),
    )  # fmt: skip
    for fmt, name in formats:
        model = save(build(layers=1, vocab_size=260), directory / fmt, fmt, tokenizer=False)
        path = (model if model.is_dir() else model.parent) / name
        yield Reader(name=fmt, seeds=(path.read_bytes(),), read=_opening(path))
    config = directory / "safetensors" / "config.json"
    yield Reader(name="config", seeds=(config.read_bytes(),), read=_config(directory / "config.json"), share=2)


def _opening(path: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        checkpoint = open_checkpoint(path.parent)
        for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
            if checkpoint.shape(name) is not None:
                checkpoint.read(name)
        checkpoint.close()

    return read


def _config(path: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        spec_from_config(read_json_object(path))

    return read


def _texts(directory: Path) -> Iterator[Reader]:
    nursery = Nursery()
    apart.RENDER_SECONDS = apart.ENCODE_SECONDS = 0.5  # many of them use all that they may
    model = write_model(directory / "texts")
    gguf = write_gguf(directory / "words.gguf", byte_level_keys("smollm"))

    def tokenizer(data: bytes) -> None:
        (model / "tokenizer.json").write_bytes(data)
        _speak(TokenizerApart(nursery, model))

    def template(data: bytes) -> None:
        (directory / "chat").mkdir(exist_ok=True)
        chat = write_model(directory / "chat")
        (chat / "chat_template.jinja").write_bytes(data)
        TokenizerApart(nursery, chat).chat_prompt(CHATS[1])

    def vocabulary(data: bytes) -> None:
        gguf.write_bytes(data)
        _speak(TokenizerApart(nursery, gguf))

    yield Reader(name="tokenizer.json", seeds=(byte_level_tokenizer_json().encode(),), read=tokenizer, share=0.1)
    yield Reader(name="template", seeds=tuple(map(str.encode, (CHATML, *TEMPLATES.values()))), read=template, share=0.1)
    yield Reader(name="vocabulary", seeds=(gguf.read_bytes(),), read=vocabulary, share=0.1)


def _speak(tokenizer: TokenizerApart) -> None:
    tokenizer.decode(tokenizer.encode("hello 1 2 <|im_start|>"))
    tokenizer.close()


def _slices(directory: Path) -> Iterator[Reader]:
    sliced = slice_model(directory / "sliced")
    manifest = sliced.slice_directory(0) / "manifest.json"
    about = replace(sliced.manifest(0), files={})
    description = json.dumps(SliceDescription.to_json(about)).encode()
    store = SliceStore(directory / "store")

    def manifests(data: bytes) -> None:
        manifest.write_bytes(data)
        read_manifest(manifest.parent)

    def described(data: bytes) -> None:
        store.offer(data, verify=False)

    def plans(data: bytes) -> None:
        Plan.from_json(_json(data), about.spec)

    yield Reader(name="manifest", seeds=(manifest.read_bytes(),), read=manifests)
    yield Reader(name="description", seeds=(description,), read=described, share=2)
    yield Reader(name="plan", seeds=(json.dumps(about.plan.to_json()).encode(),), read=plans)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _state(directory: Path) -> Iterator[Reader]:
    state = directory / "state"
    init_mesh(state, "home")
    open_mesh_state(state).invites.make(3600)
    good = directory / "good"
    shutil.copytree(state, good)
    for path in sorted(one for one in good.iterdir() if one.is_file() and one.stat().st_size):
        yield Reader(
            name=f"state {path.name}", seeds=(path.read_bytes(),), read=_reopening(good, state, path.name), share=0.5
        )

    def records(data: bytes) -> None:
        place = state / "models" / "small"
        place.mkdir(parents=True, exist_ok=True)
        (place / RECORD_FILE).write_bytes(data)
        LoadedModels(state).all()

    yield Reader(name="record", seeds=(_record(directory),), read=records)


def _record(directory: Path) -> bytes:
    """Return what is written of a loaded model."""
    sliced = slice_model(directory / "loaded")
    description = SliceDescription.to_json(sliced.manifest())
    return json.dumps({"format": 2, "description": description, "nodes": ["attic"], "source": "small"}).encode()


def _reopening(good: Path, state: Path, name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> None:
        shutil.rmtree(state)
        shutil.copytree(good, state)
        (state / name).write_bytes(data)
        open_mesh_state(state)

    return read


def _messages(directory: Path) -> Iterator[Reader]:
    sliced = slice_model(directory / "at_work")
    node = ShardNode(sliced.node_config())
    rows = random_rows(2, sliced.spec.hidden_size)
    requests = [open_session(1, sliced.identity), open_sequence(2), run_block(3, rows)]
    later = [
        run_block(4, rows, segments=[(1, 2, 2)]), run_block(4, rows, kind=FFN), open_sequence(4, sequence_id=2),
        close_sequence(4),
    ]  # fmt: skip

    def session(data: bytes) -> None:
        message = shard_pb2.RoundsRequest()
        if not is_read(message, data):
            return
        opened = Session(node)
        try:
            for request in requests:
                opened.handle(request)
            opened.handle(message)
        finally:
            opened.close()

    def asking(data: bytes) -> None:
        message = generation_pb2.GenerateRequest()
        if is_read(message, data):
            generation_service.ask_of(message, "x")

    def frames(data: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            theirs.send(data[: 1 << 16])
            theirs.shutdown(socket.SHUT_WR)
            FrameReader(ours, 1 << 20).receive()

    ask = generation_pb2.GenerateRequest(model="a", prompt="b", length=3, temperature=1.0, top_p=0.5, stop=["x"])
    penalized = generation_pb2.GenerateRequest(
        model="a", length=3, top_p=0.5, min_p=0.1, repetition_penalty=1.5, presence_penalty=-0.5,
        frequency_penalty=0.25, logit_bias={40: -3.5}, logprobs=3,
    )  # fmt: skip
    yield Reader(name="session", seeds=tuple(one.SerializeToString() for one in later), read=session, share=2)
    yield Reader(name="asking", seeds=(ask.SerializeToString(), penalized.SerializeToString()), read=asking)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_frame(ours, requests[2].SerializeToString())
        framed = theirs.recv(1 << 16)
    yield Reader(name="frames", seeds=(framed,), read=frames)


def is_read(message: Any, data: bytes) -> bool:
    """Tell whether bytes are a message; gRPC refuses others before anybody of ours sees them."""
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(data)
    except DecodeError:
        return False
    return True


def is_ours(error: BaseException) -> bool:
    """Tell whether an error is one that a person may be told."""
    return isinstance(error, ShardmeshError) and not isinstance(error, InternalError)

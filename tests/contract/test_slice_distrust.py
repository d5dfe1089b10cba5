"""Can a sender make a node write where it should not, take what nobody described, or lose what it has?

Covers: names, positions, descriptions and digests that lie; two senders at once. Does not cover: who may send at all
(test_mesh_trust.py), slices that are sent well (test_slice_shipping.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError, ProtocolError, ShardmeshError, SliceCorrupt, SliceError
from common.weights.packs import pack_layout, slice_tiles
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from common.weights.slice_format import FileLayout
from shardnode.slices.slice_store import SliceStore
from tests.support.packed_models import finely_cut_checkpoint, packed_description
from tests.support.shipped_slices import checkpoint_of, slice_of

IDS = ("", ".", "..", "../../etc", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "/", "a" * 65, "\0" * 64, "/etc/passwd")
NAMES = (
    "",
    ".",
    "..",
    "../manifest.json",
    "/etc/passwd",
    "manifest.json",
    "serving.json",
    "layer0000",
    "x" * 5000,
    "\0",
)
POSITIONS = (-1, 1, 1 << 62, -(1 << 62))


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SliceDescription]:
    """Return what is offered."""
    checkpoint = checkpoint_of(tmp_path_factory.mktemp("model"), layers=1)
    yield slice_of(checkpoint)
    checkpoint.close()


@pytest.fixture
def store(tmp_path: Path) -> SliceStore:
    """Return a node's slices in a directory of their own, with something beside it to damage."""
    (tmp_path / "beside").write_text("precious")
    return SliceStore(tmp_path / "data")


def offered(store: SliceStore, description: SliceDescription) -> tuple[str, str, FileLayout]:
    """Offer a slice; return its name, the name of its first file, and that file's layout."""
    slice_id = store.offer(text_of(description), verify=False).slice_id
    name, layout = next(iter(description.layouts().items()))
    return slice_id, name, layout


def text_of(description: SliceDescription, **changes: Any) -> bytes:
    """Return a description as it is sent, or with changes that make no sense."""
    return json.dumps({**description.to_json(), **changes}).encode()


@pytest.mark.parametrize("slice_id", IDS)
def test_what_names_no_slice_is_refused_everywhere(store: SliceStore, tmp_path: Path, slice_id: str) -> None:
    """Before it is a path."""
    for call in (store.whole, store.publish, store.remove, lambda one: store.receive(one, "x", 0)):
        with pytest.raises(InputError, match="names no slice"):
            call(slice_id)
    assert (tmp_path / "beside").read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_does_not_follow_from_the_description_is_refused(
    store: SliceStore, description: SliceDescription, name: str
) -> None:
    """Whatever it is called."""
    slice_id, _, _ = offered(store, description)
    with pytest.raises(InputError, match="has no file"):
        store.receive(slice_id, name, 0)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_file_cannot_go_on_from_where_it_never_was(
    store: SliceStore, description: SliceDescription, position: int
) -> None:
    """A negative position, or a hole."""
    slice_id, name, _ = offered(store, description)
    with pytest.raises(InputError, match="cannot go on from"):
        store.receive(slice_id, name, position)


def test_more_bytes_than_the_file_has_are_not_written(store: SliceStore, description: SliceDescription) -> None:
    """Not one of them."""
    slice_id, name, layout = offered(store, description)
    file = store.receive(slice_id, name, 0)
    file.write(bytes(layout.file_bytes))
    with pytest.raises(InputError, match="more were sent"):
        file.write(b"x")
    file.close()
    assert store.offer(text_of(description), verify=False).files[name].byte_count == layout.file_bytes


def test_digests_that_lie_make_no_file_whole(store: SliceStore, description: SliceDescription) -> None:
    """Of another length, not hexadecimal, too few, or of other bytes; only the last costs what has arrived."""
    slice_id, name, layout = offered(store, description)
    file = store.receive(slice_id, name, 0)
    with pytest.raises(InputError, match="were sent"):
        file.finish("0" * 64, ["0" * 64] * len(layout.tiles))
    file.write(bytes(layout.file_bytes))
    right = hashlib.sha256(bytes(layout.file_bytes)).hexdigest()
    for sha256, tiles in ((right[:-1], None), ("x" * 64, None), (right, ["0" * 64] * 2), (right, ["../x"])):
        with pytest.raises(InputError, match="each with a SHA-256"):
            file.finish(sha256, ["0" * 64] * len(layout.tiles) if tiles is None else tiles)
    with pytest.raises(SliceCorrupt, match="other bytes than were sent"):
        file.finish("0" * 64, ["0" * 64] * len(layout.tiles))
    file.close()
    assert store.offer(text_of(description), verify=False).files == {}
    with pytest.raises(SliceError, match="lacks"):
        store.publish(slice_id)


def test_the_newest_sender_goes_on_and_the_one_before_writes_nothing_more(
    store: SliceStore, description: SliceDescription
) -> None:
    """A link that nobody knows to be dead yet must not hold the next one up, nor write into its file."""
    slice_id, name, layout = offered(store, description)
    old = store.receive(slice_id, name, 0)
    old.write(b"a" * 1000)
    new = store.receive(slice_id, name, 1000)
    for late in (lambda: old.write(b"b"), lambda: old.finish("0" * 64, ["0" * 64] * len(layout.tiles))):
        with pytest.raises(ProtocolError, match="has taken over"):
            late()
    new.write(b"c")
    old.close()
    new.close()
    assert store.offer(text_of(description), verify=False).files[name].byte_count == 1001


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": COORDINATOR_RANK}, {"rank": 99}, {"rank": -2}, {"dtype": "int4"}, {"tile_bytes": 0},
        {"tile_bytes": -4096}, {"plan": {}}, {"spec": None}, {"spec": {"hidden_size": -1}}, {"rank": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_description_that_can_never_be_right_is_refused(
    store: SliceStore, description: SliceDescription, changes: dict[str, Any]
) -> None:
    """And nothing is made for it."""
    with pytest.raises(InputError):
        store.offer(text_of(description, **changes), verify=False)
    assert store.held() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(text=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["spec", "plan", "rank", "dtype", "tile_bytes"]), inner), max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_description_does_more_than_fail(store: SliceStore, text: bytes) -> None:
    """Random bytes, and JSON of any shape."""
    with pytest.raises(ShardmeshError):
        store.offer(text, verify=False)


def test_a_pack_that_is_not_lacking_so_is_refused_whatever_it_is_called(store: SliceStore, tmp_path: Path) -> None:
    """A name that follows from other tiles than those that are lacking, a path, a position behind what has arrived."""
    checkpoint = finely_cut_checkpoint(tmp_path / "model", layers=1)
    description = packed_description(checkpoint, world_size=2, rank=0)
    checkpoint.close()
    offer = store.offer(text_of(description), verify=False)
    (pack,) = offer.packs
    for name in (*NAMES, pack.name + ".part", "a" * 32 + ".safetensors", "layer0000.ffn.safetensors"):
        with pytest.raises(InputError, match="lacks no pack"):
            store.receive(offer.slice_id, name, 0)
    for position in POSITIONS:
        with pytest.raises(InputError, match="cannot go on from"):
            store.receive(offer.slice_id, pack.name, position)
    with pytest.raises(SliceError, match="lacks a tile"):
        store.publish(offer.slice_id)
    file = store.receive(offer.slice_id, pack.name, 0)
    layout = pack_layout(slice_tiles(description))
    file.write(bytes(layout.file_bytes))
    with pytest.raises(InputError, match="more were sent"):
        file.write(b"x")
    right = hashlib.sha256(bytes(layout.file_bytes)).hexdigest()
    with pytest.raises(InputError, match="each with a SHA-256"):
        file.finish(right, ["0" * 64])
    with pytest.raises(SliceCorrupt, match="other bytes than were sent"):
        file.finish("0" * 64, ["0" * 64] * len(layout.tiles))
    file.close()
    assert store.kept_tiles() == {}
    assert (tmp_path / "beside").read_text() == "precious"


def test_the_pointer_to_what_is_served_is_believed_only_if_it_names_a_slice(store: SliceStore, tmp_path: Path) -> None:
    """Anything else is damage, which is told, and the next load goes past it."""
    for text in ("", "{", "[]", '{"slice_id": 5}', '{"slice_id": "../../etc"}', "[" * 100_000):
        for name in ("serving.json", "serving.json.copy"):
            (tmp_path / "data" / name).write_text(text)
        with pytest.raises(SliceCorrupt, match="damaged"):
            store.served()
        store.remove("a" * 64)

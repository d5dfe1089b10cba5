"""Is a tile what it holds, whatever the plan, and is nothing on disk believed that says otherwise?

Covers: common/weights/packs.py, common/weights/pack_store.py, and manifests of slices in packs.
Does not cover: making packs (test_packed_slices.py), receiving them (tests/contract/test_packed_shipping.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError, SliceCorrupt, SliceError
from common.model.plan import make_plan
from common.weights import packs
from common.weights.manifest import MANIFEST_NAME, _body_digest, read_manifest
from common.weights.pack_store import PackStore
from common.weights.packs import pack_layout, pack_name, packed, slice_tiles
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from common.weights.slice_format import PAGE_BYTES
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.splitter import ensure_slices
from tests.support.packed_models import (
    contents_of,
    finely_cut_checkpoint,
    packed_description,
    packed_request,
    plain_encodings,
)
from tests.support.sliced_models import no_progress

NAMES: tuple[Any, ...] = ("", "..", "../x.safetensors", "/etc/passwd", "a" * 32, f"{'A' * 32}.safetensors", 5, None,
                          f"{'a' * 32}.safetensors.part", f"{'a' * 33}.safetensors")  # fmt: skip
OFFSETS: tuple[Any, ...] = (0, -4096, 5000, 1 << 62, "4096", None, 4096.0, True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return a model that is cut finely."""
    opened = finely_cut_checkpoint(tmp_path_factory.mktemp("model"), layers=1)
    yield opened
    opened.close()


@pytest.fixture
def split(checkpoint: Checkpoint, tmp_path: Path) -> SplitRequest:
    """Return what was cut for two nodes."""
    request = packed_request(checkpoint, tmp_path / "split", world_size=2)
    ensure_slices(checkpoint, request, redo=False, progress=no_progress)
    return request


def keys(description: SliceDescription) -> set[str]:
    """Return the keys of a slice's tiles."""
    return {tile.key for tile in slice_tiles(description)}


def test_a_tile_that_two_plans_cut_alike_has_one_key(checkpoint: Checkpoint) -> None:
    """All of a model on one node is what two and four nodes have together, as long as cells are not cut through."""
    together = [
        {key for rank in range(count) for key in keys(packed_description(checkpoint, world_size=count, rank=rank))}
        for count in (1, 2, 4)
    ]
    assert together[0] == together[1] == together[2]
    cut_through = keys(packed_description(checkpoint, world_size=5, rank=0))
    assert cut_through & together[0]
    assert cut_through - together[0]


def test_whatever_changes_a_tiles_bytes_changes_its_key(checkpoint: Checkpoint) -> None:
    """The model, how weights were made into what is stored, an encoding, the layer, the part of it."""
    about = packed_description(checkpoint, world_size=2, rank=0)
    encodings = plain_encodings(checkpoint.spec, "float16")
    others = (
        replace(about, model_identity="another"), replace(about, dtype="q8_0"), replace(about, encodings=encodings),
        about.of_rank(1),
    )  # fmt: skip
    assert all(not keys(about) & keys(other) for other in others)
    tiles = slice_tiles(about)
    assert len({tile.key for tile in tiles}) == len(tiles)
    own = about.of_rank(COORDINATOR_RANK)
    other_plan = replace(own, plan=make_plan(checkpoint.spec, "ratio:3,1", 2))
    assert keys(own) == keys(other_plan)


def test_packs_of_what_is_left_are_those_that_there_were(checkpoint: Checkpoint) -> None:
    """So that a pack of which half has arrived is asked for by the same name when others have come before it."""
    tiles = slice_tiles(packed_description(checkpoint, world_size=2, rank=0))
    all_packs = list(packed(tiles, 200_000))
    assert len(all_packs) > 4
    for done in range(len(all_packs)):
        left = [tile for pack in all_packs[done:] for tile in pack]
        assert list(packed(left, 200_000)) == all_packs[done:]
    assert len({pack_name([tile.key for tile in pack]) for pack in all_packs}) == len(all_packs)
    assert [len(pack) for pack in packed(tiles, 1)] == [1] * len(tiles), "a tile larger than a pack is a pack"


def test_a_slice_of_more_tiles_than_any_model_has_is_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they are hashed; and FFN columns beyond reason before there is a list of them."""
    monkeypatch.setattr(packs, "MAX_TILES_PER_SLICE", 5)
    with pytest.raises(InputError, match="more than 5 tiles"):
        slice_tiles(packed_description(checkpoint, world_size=2, rank=0))
    spec = replace(checkpoint.spec, ffn_size=1 << 24)
    huge = replace(packed_description(checkpoint, world_size=1, rank=0), spec=spec, plan=make_plan(spec, "uniform", 1))
    with pytest.raises(InputError, match="tiles a file"):
        huge.layouts()


def test_a_pack_is_whole_pages(checkpoint: Checkpoint) -> None:
    """Each tile begins on one, so that it is read past the page cache."""
    layout = pack_layout(slice_tiles(packed_description(checkpoint, world_size=2, rank=0)))
    assert all(offset % PAGE_BYTES == 0 for offset in (*layout.tile_offsets, layout.file_bytes))


def rewritten(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and give it a digest that fits."""
    path = directory / MANIFEST_NAME
    body = json.loads(path.read_text())
    del body["body_sha256"]
    change(body)
    path.write_text(json.dumps({**body, "body_sha256": _body_digest(body)}))


def set_pack(body: dict[str, Any], name: Any) -> None:
    """Have the manifest's first pack called otherwise."""
    body["packs"][0][0] = name


def set_tile(body: dict[str, Any], at: int, value: Any) -> None:
    """Have its first tile say something else."""
    next(iter(body["tiles"].values()))[0][at] = value


CHANGES: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    *((f"pack {name!r}", lambda body, name=name: set_pack(body, name)) for name in NAMES),
    *((f"offset {at!r}", lambda body, at=at: set_tile(body, 1, at)) for at in OFFSETS),
    ("number", lambda body: set_tile(body, 0, 7)), ("sha256", lambda body: set_tile(body, 2, "x" * 64)),
    ("xxh3", lambda body: set_tile(body, 3, None)), ("no tiles", lambda body: body.pop("tiles")),
    ("no packs", lambda body: body.update(packs=[])), ("a block", lambda body: body["tiles"].popitem()),
    ("a tile", lambda body: next(iter(body["tiles"].values())).pop()), ("a list", lambda body: body.update(tiles=[])),
    ("size", lambda body: body["packs"][0].__setitem__(1, 4096)),
]  # fmt: skip


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_a_manifest_that_names_what_cannot_be_is_refused(
    split: SplitRequest, change: Callable[[dict[str, Any]], None]
) -> None:
    """Though its digest is right: names that are no pack's, tiles beside the pack, digests that are none."""
    directory = split.slice_directory(0)
    assert contents_of(directory)
    rewritten(directory, change)
    with pytest.raises(SliceCorrupt, match=r"makes no sense .*; slice the model again"):
        read_manifest(directory)


def test_a_symbolic_link_is_no_pack(checkpoint: Checkpoint, split: SplitRequest) -> None:
    """What it points at may be anything; reading refuses it."""
    from common.weights.open_tiles import sweep_tiles
    from common.weights.reader import TileFiles

    pack = next(iter(read_manifest(split.slice_directory(0)).pack_bytes))
    path = split.store_directory / pack
    os.rename(path, path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    with pytest.raises(SliceError, match="opening failed"):
        TileFiles(sweep_tiles(split.slice_directory(0), read_manifest(split.slice_directory(0))))


def test_an_index_that_is_damaged_or_lies_is_as_good_as_none(split: SplitRequest) -> None:
    """Its tiles count as lacking then, which costs writing them again."""
    store = PackStore(split.store_directory)
    (index, *_) = sorted(split.store_directory.glob("*.json"))
    text, others = index.read_text(), len(store.packs()) - 1
    row = json.loads(text)["tiles"][0]
    for wrong in ("", "{", "[]", "5", text[:-20], text.replace(row[3], "0" * 64), text.replace(str(row[1]), "1")):
        index.write_text(wrong)
        assert len(store.packs()) == others
    index.write_text(text)
    assert len(store.packs()) == others + 1


def test_tiles_that_are_damaged_are_found_and_forgotten_one_by_one(split: SplitRequest) -> None:
    """The others of their pack stay; when none is left, the pack goes."""
    store = PackStore(split.store_directory)
    pack = store.packs()[0]
    (first, (tile, byte_count)), *rest = pack.tiles.items()
    with open(store.path(pack.name), "r+b") as file:
        file.seek(tile.offset + byte_count - 1)
        file.write(b"\1")
    assert store.damaged([key for key, _ in rest]) == set()
    assert store.damaged([first]) == {first}
    assert first not in store.tiles()
    assert {key for key, _ in rest} <= set(store.tiles())
    store.path(pack.name).write_bytes(bytes(pack.size_bytes))
    assert store.damaged(store.tiles()) == {key for key, _ in rest}
    assert not store.path(pack.name).exists()

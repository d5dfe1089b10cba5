"""Is a slice directory only believed when its manifest is whole, sensible, and fits its files?

Covers: common/weights/manifest.py, with every kind of damage. Does not cover: the bytes of tiles (test_reader.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SliceCorrupt, SliceError, SliceMismatch
from common.model.plan import make_plan
from common.weights import manifest as manifests
from common.weights.checksums import SHA256, XXH3, xxh3_of
from common.weights.manifest import COORDINATOR_RANK, MANIFEST_NAME, XXH3_KEY, check_belongs, read_manifest
from tests.support.older_slices import make_older
from tests.support.sliced_models import SlicedModel, slice_model


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a model cut for two nodes; nobody changes it."""
    return slice_model(tmp_path_factory.mktemp("sliced"), world_size=2)


@pytest.fixture
def copy(sliced: SlicedModel, tmp_path: Path) -> Path:
    """Return a copy of node 0's slice, to be damaged."""
    return Path(shutil.copytree(sliced.slice_directory(0), tmp_path / "node0"))


def refusal(directory: Path, kind: type[SliceError]) -> str:
    """Return the one line with which a slice directory is refused, with exactly this class."""
    with pytest.raises(SliceError) as caught:
        read_manifest(directory)
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert "\n" not in message
    assert "--split-bin" in message
    assert str(directory) in message
    return message


def rewrite(directory: Path, change: Callable[[dict[str, Any]], object], *, honest: bool = True) -> None:
    """Change a manifest's values; `honest` makes its digest fit them, as a hostile writer would."""
    path = directory / MANIFEST_NAME
    value = json.loads(path.read_text())
    change(value)
    if honest:
        value.pop("body_sha256", None)
        value["body_sha256"] = manifests._body_digest(value)
    path.write_text(json.dumps(value))


def setting(*keys: Any, to: Any) -> Callable[[dict[str, Any]], object]:
    """Return what sets a value deep inside a manifest; `...` removes it."""

    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        if to is ...:
            del value[keys[-1]]
        else:
            value[keys[-1]] = to

    return change


BLOCK = "layer0000.attention.safetensors"


def test_a_manifest_reads_back_to_what_was_written(sliced: SlicedModel) -> None:
    """Spec, plan, rank, dtype and every file's size and digests survive."""
    for rank in (COORDINATOR_RANK, 0, 1):
        manifest = sliced.manifest(rank)
        assert (manifest.rank, manifest.dtype, manifest.plan, manifest.spec) == (
            rank, "float32", sliced.plan, sliced.spec,
        )  # fmt: skip
        assert manifest.model_identity == sliced.identity.model_identity
        assert json.loads(manifest.text()) == json.loads((sliced.slice_directory(rank) / MANIFEST_NAME).read_text())
        for name, entry in manifest.files.items():
            assert (sliced.slice_directory(rank) / name).stat().st_size == entry.size_bytes


def test_tiles_are_checked_by_xxh3_and_by_sha_256_where_the_manifest_has_none(sliced: SlicedModel, copy: Path) -> None:
    """Of every file on its own: a slice may have begun to arrive under a build of before."""
    data, layout = (copy / BLOCK).read_bytes(), sliced.manifest(0).layouts()[BLOCK]
    tiles = [data[at : at + tile.byte_count] for at, tile in zip(layout.tile_offsets, layout.tiles, strict=True)]
    found = read_manifest(copy).files[BLOCK].tile_checksums
    assert [(one.kind, one.value) for one in found] == [(XXH3, xxh3_of(tile)) for tile in tiles]
    rewrite(copy, setting("files", BLOCK, XXH3_KEY, to=...))
    entries = read_manifest(copy).files
    assert [(one.kind, one.value) for one in entries[BLOCK].tile_checksums] == [
        (SHA256, hashlib.sha256(tile).hexdigest()) for tile in tiles
    ]
    assert {one.kind for name, entry in entries.items() if name != BLOCK for one in entry.tile_checksums} == {XXH3}
    make_older(copy)
    assert {one.kind for entry in read_manifest(copy).files.values() for one in entry.tile_checksums} == {SHA256}
    assert XXH3_KEY not in (copy / MANIFEST_NAME).read_text()


def test_a_directory_without_a_manifest_is_no_slice(tmp_path: Path, copy: Path) -> None:
    """Empty, not there, or everything but the manifest."""
    refusal(tmp_path / "nowhere", SliceError)
    (copy / MANIFEST_NAME).unlink()
    assert "holds no slice" in refusal(copy, SliceError)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"manifest"', "[" * 100_000, "\x00\xff", '{"format_version": 1}', "{}"[:1] * 3],
)
def test_a_manifest_that_is_no_json_object_of_ours_is_corrupt(copy: Path, text: str) -> None:
    """Empty, cut short, of another shape, nested without end."""
    (copy / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    refusal(copy, SliceCorrupt)


def test_another_format_version_is_a_mismatch_with_both_versions(copy: Path) -> None:
    """A slice of a later program is not damaged; it has to be made again all the same."""
    for version in (3, 0, "1", None, ...):
        rewrite(copy, setting("format_version", to=version))
        assert "this program reads 1 and 2" in refusal(copy, SliceMismatch)
        rewrite(copy, lambda value: value.update(format_version=1))
    read_manifest(copy)


@pytest.fixture(scope="module")
def spoilt(sliced: SlicedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of node 0's slice whose manifest is written anew by every example."""
    return Path(shutil.copytree(sliced.slice_directory(0), tmp_path_factory.mktemp("copy") / "node0"))


@settings(max_examples=100)
@given(data=st.data())
def test_no_flipped_byte_of_a_manifest_gets_through(sliced: SlicedModel, spoilt: Path, data: st.DataObject) -> None:
    """Whatever one byte becomes, the slice is refused, or the text means the very same (white space)."""
    original = (sliced.slice_directory(0) / MANIFEST_NAME).read_bytes()
    spoiled = bytearray(original)
    spoiled[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    (spoilt / MANIFEST_NAME).write_bytes(spoiled)
    try:
        assert read_manifest(spoilt) == sliced.manifest(0)
    except SliceError as error:
        assert isinstance(error, (SliceCorrupt, SliceMismatch))  # noqa: PT017 - refused, and rightly named


@pytest.mark.parametrize(
    ("keys", "to"),
    [
        (("rank",), 2), (("rank",), -2), (("rank",), "one"), (("rank",), None), (("rank",), ...),
        (("dtype",), "int8"), (("dtype",), ...), (("dtype",), ["float32"]),
        (("tile_bytes",), 0), (("tile_bytes",), -4096), (("tile_bytes",), 1 << 60), (("tile_bytes",), "big"),
        (("tile_bytes",), 1 << 20), (("tile_bytes",), 1e400),
        (("model_identity",), ...),
        (("spec",), None), (("spec",), {}), (("spec", "hidden_size"), 65), (("spec", "hidden_size"), -1),
        (("spec", "hidden_size"), 1 << 60), (("spec", "layer_count"), 1), (("spec", "layer_count"), 1 << 40),
        (("spec", "layer_count"), "2"), (("spec", "norm_epsilon"), "small"), (("spec", "norm_epsilon"), float("nan")),
        (("spec", "rope", "theta"), float("nan")), (("spec", "rope", "theta"), "x"), (("spec", "colour"), "red"),
        (("spec", "sliding_windows"), [0]), (("spec", "sliding_windows"), [0, -1]), (("spec", "vocab_size"), True),
        (("plan",), None), (("plan", "query_heads"), [[0, 4]]), (("plan", "query_heads"), [[0, 2], [2, 5]]),
        (("plan", "ffn_columns"), [[0, 48], [40, 96]]), (("plan", "query_heads"), [[0, 2], [2, "x"]]),
        (("files",), None), (("files",), []), (("files",), {}), (("files", BLOCK), ...), (("files", BLOCK), None),
        (("files", BLOCK, "size_bytes"), 5), (("files", BLOCK, "size_bytes"), "x"),
        (("files", BLOCK, "tile_sha256"), []), (("files", BLOCK, "tile_sha256"), None),
        (("files", BLOCK, XXH3_KEY), []), (("files", BLOCK, XXH3_KEY), None), (("files", BLOCK, XXH3_KEY), "0" * 16),
        (("files", BLOCK, XXH3_KEY), {"0" * 16: 1, "1" * 16: 2}), (("files", BLOCK, XXH3_KEY), ["0" * 16] * 99),
        (("files", BLOCK, XXH3_KEY, 0), "0" * 15), (("files", BLOCK, XXH3_KEY, 0), "0" * 17),
        (("files", BLOCK, XXH3_KEY, 0), "A" * 16), (("files", BLOCK, XXH3_KEY, 0), "g" * 16),
        (("files", BLOCK, XXH3_KEY, 0), "0" * 15 + "\n"), (("files", BLOCK, XXH3_KEY, 0), 1234567890123456),
        (("files", BLOCK, XXH3_KEY, 0), None), (("files", BLOCK, XXH3_KEY, 0), "../../../../etc/"),
        (("files", "../../../etc/passwd"), {"size_bytes": 1, "sha256": "", "tile_sha256": []}),
        (("files", "layer0009.ffn.safetensors"), {"size_bytes": 1, "sha256": "", "tile_sha256": []}),
    ],
)  # fmt: skip
def test_a_manifest_with_a_right_digest_is_still_checked(copy: Path, keys: tuple[Any, ...], to: Any) -> None:
    """Ranges, types, unknown keys, files that the plan does not need or needs and lacks."""
    rewrite(copy, setting(*keys, to=to))
    refusal(copy, SliceCorrupt)


def test_a_vocabulary_of_millions_of_tiles_is_refused_before_they_are_laid_out(
    sliced: SlicedModel, tmp_path: Path
) -> None:
    """A hostile manifest costs no more than its own bytes."""
    directory = tmp_path / "coordinator"
    shutil.copytree(sliced.slice_directory(COORDINATOR_RANK), directory)
    rewrite(directory, setting("spec", "vocab_size", to=1 << 24))
    rewrite(directory, setting("tile_bytes", to=4096))
    assert "number of tiles" in refusal(directory, SliceCorrupt)


def test_a_value_without_a_new_digest_is_damage(copy: Path) -> None:
    """The manifest's own digest finds what the checks of values cannot: another model's name."""
    rewrite(copy, setting("model_identity", to="f" * 64), honest=False)
    assert "its digest differs" in refusal(copy, SliceCorrupt)
    rewrite(copy, setting("body_sha256", to=...), honest=False)
    refusal(copy, SliceCorrupt)


def test_a_manifest_of_absurd_size_is_not_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is larger than any manifest is refused by its size."""
    monkeypatch.setattr(manifests, "MAX_MANIFEST_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    assert "larger than any manifest" in refusal(copy, SliceCorrupt)


def test_a_manifest_that_cannot_be_read_is_corrupt(copy: Path) -> None:
    """A directory in its place."""
    (copy / MANIFEST_NAME).unlink()
    (copy / MANIFEST_NAME).mkdir()
    refusal(copy, SliceCorrupt)


@pytest.mark.parametrize("change", ["missing", "empty", "short", "long"])
def test_a_block_file_of_another_size_is_corrupt(copy: Path, change: str) -> None:
    """The file is named; nothing of it is read for that."""
    path = copy / BLOCK
    size = path.stat().st_size
    if change == "missing":
        path.unlink()
    else:
        os.truncate(path, {"empty": 0, "short": size - 1, "long": size + 4096}[change])
    assert BLOCK in refusal(copy, SliceCorrupt)


def test_files_that_are_in_nobodys_manifest_do_not_matter(copy: Path) -> None:
    """A note beside the slices harms nobody."""
    (copy / "README").write_text("mine")
    read_manifest(copy)


def test_a_slice_that_belongs_is_accepted_and_others_say_what_differs(sliced: SlicedModel) -> None:
    """Model, plan, rank and dtype, each alone and all at once, by name on both sides."""
    manifest, directory = sliced.manifest(0), sliced.slice_directory(0)
    right: dict[str, Any] = {
        "model_identity": manifest.model_identity, "plan": manifest.plan, "rank": 0, "dtype": "float32",
    }  # fmt: skip
    check_belongs(manifest, directory, **right)
    check_belongs(manifest, directory, **{**right, "plan": make_plan(sliced.spec, "ratio:2,2", 2)})
    wrong: dict[str, tuple[Any, str]] = {
        "model_identity": ("f" * 64, f"another model ({manifest.model_identity[:12]} instead of ffffffffffff)"),
        "plan": (make_plan(sliced.spec, "ratio:3,1,1", 3), "plan 'uniform' on 2 nodes instead of 'ratio:3,1,1' on 3"),
        "rank": (1, "rank 0 instead of 1"),
        "dtype": ("bfloat16", "float32 weights instead of bfloat16"),
    }
    for name, (value, words) in wrong.items():
        with pytest.raises(SliceMismatch) as caught:
            check_belongs(manifest, directory, **{**right, name: value})
        assert words in str(caught.value)
        assert sum(other in str(caught.value) for _, other in wrong.values()) == 1
        assert "--split-bin" in str(caught.value)
    with pytest.raises(SliceMismatch) as caught:
        check_belongs(manifest, directory, **{name: value for name, (value, _) in wrong.items()})
    assert all(words in str(caught.value) for _, words in wrong.values())


def test_a_plan_of_one_node_is_spelled_so(sliced: SlicedModel) -> None:
    """A person reads the message."""
    one = make_plan(sliced.spec, "uniform", 1)
    with pytest.raises(SliceMismatch, match="instead of 'uniform' on 1 node;"):
        check_belongs(
            sliced.manifest(0), Path("x"), model_identity=sliced.identity.model_identity, plan=one, rank=0,
            dtype="float32",
        )  # fmt: skip

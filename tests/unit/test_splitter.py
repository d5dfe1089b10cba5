"""Are slices the checkpoint's own numbers, reused when they fit, refused when not, and never half there?

Covers: coordinator/slicing/splitter.py and coordinator/slicing/tiles.py. Does not cover:
kills (test_splitter_interrupted.py), memory (test_slicing_memory.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import DiskFull, InputError, SliceCorrupt, SliceError, SliceMismatch
from common.model.plan import make_plan
from common.weights.manifest import COORDINATOR_RANK, HEAD_FILE, NORMS_FILE
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, widened
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.slicing import splitter
from coordinator.slicing.split_request import INCOMPLETE, LOCK, SplitRequest
from coordinator.slicing.splitter import BUILDING, ensure_slices
from tests.support.model_tensors import HEAD
from tests.support.random_models import build
from tests.support.safetensors_files import Array, read_tensors
from tests.support.sliced_models import SlicedModel, no_progress, slice_model

LAYER = "model.layers.0."


@pytest.fixture
def sliced(tmp_path: Path) -> SlicedModel:
    """Return a small model cut for two nodes."""
    return slice_model(tmp_path, model=build(layers=1, vocab_size=260), world_size=2)


@pytest.fixture
def checkpoint(sliced: SlicedModel) -> Checkpoint:
    """Return the small model's checkpoint."""
    return open_checkpoint(sliced.directory)


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory but the lock."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def whole_matrix(sliced: SlicedModel, name: str, tensor: str) -> Floats:
    """Put a source matrix of layer 0, [out, in], together again from the tiles of all ranks."""
    head = sliced.spec.head_size
    whole = np.full(sliced.model.tensors[f"{LAYER}{name}.{tensor}"].shape, np.nan, dtype=np.float32)
    kind = "attention" if "attn" in name else "ffn"
    for rank in range(sliced.plan.world_size):
        manifest = sliced.manifest(rank)
        layout = manifest.block_layouts()[kind][0]
        if not layout.tiles:
            continue
        tensors = read_tensors(sliced.slice_directory(rank) / f"layer0000.{kind}.safetensors")
        for index, tile in enumerate(layout.tiles):

            def part(key: str, at: int = index, tensors: dict[str, Array] = tensors) -> Floats:
                found = tensors[f"tile{at}.{key}"]
                assert found.dtype == NUMPY_DTYPES["float32" if found.ndim == 1 else sliced.split.dtype]
                return widened(found).T

            queries = slice(tile.first * head, (tile.first + tile.count) * head)
            keys = slice(tile.kv_first * head, (tile.kv_first + tile.kv_count) * head)
            columns = slice(tile.first, tile.first + tile.count)
            if name.endswith("o_proj"):
                whole[:, queries] = part("output")
            elif name.endswith("down_proj"):
                whole[:, columns] = part("down")
            elif kind == "ffn":
                both = part("gate_up" if tensor == "weight" else "gate_up_bias")
                whole[columns] = both[: tile.count] if name.endswith("gate_proj") else both[tile.count :]
            else:
                both = part("qkv" if tensor == "weight" else "qkv_bias")
                query_rows, key_rows = tile.count * head, tile.kv_count * head
                start = {"q_proj": 0, "k_proj": query_rows, "v_proj": query_rows + key_rows}[name.split(".")[-1]]
                rows = queries if name.endswith("q_proj") else keys
                whole[rows] = both[start : start + rows.stop - rows.start]
    return whole


@pytest.mark.parametrize(
    ("family", "world_size", "strategy", "dtype"),
    [("llama", 3, "ratio:3,1,1", "float32"), ("qwen2", 4, "uniform", "bfloat16"),
     ("llama", 9, "uniform", "float16"), ("qwen3", 1, "uniform", "float32")],
)  # fmt: skip
def test_slices_hold_every_number_of_the_checkpoint(
    tmp_path: Path, family: str, world_size: int, strategy: str, dtype: str
) -> None:
    """The tiles of all ranks together are each source matrix, bit for bit, also with more ranks than KV heads."""
    settings = {"attention_bias": True, "mlp_bias": True} if family == "llama" else {}
    model = build(family, layers=1, query_heads=6, kv_heads=2, hidden_size=96, vocab_size=260, dtype=dtype, **settings)
    sliced = slice_model(tmp_path, model=model, world_size=world_size, strategy=strategy, dtype=dtype)
    late = ("o_proj.bias", "down_proj.bias", "norm.weight")
    names = [name.removeprefix(LAYER) for name in model.tensors if name.startswith(LAYER)]
    checked = [name for name in names if not name.endswith(late)]
    assert len(checked) >= 7
    for name in checked:
        assert np.array_equal(whole_matrix(sliced, *name.rsplit(".", 1)), model.floats(LAYER + name)), name
    own = read_tensors(sliced.slice_directory() / NORMS_FILE)
    assert np.array_equal(own["tile0.ffn_norm"][0], model.floats(f"{LAYER}post_attention_layernorm.weight"))
    if family == "llama":
        assert np.array_equal(own["tile0.down_bias"][0], model.floats(f"{LAYER}mlp.down_proj.bias"))
    if family == "qwen3":
        norm = read_tensors(sliced.slice_directory(0) / "layer0000.attention.safetensors")["tile0.key_norm"]
        assert np.array_equal(norm, model.floats(f"{LAYER}self_attn.k_norm.weight"))
    head = read_tensors(sliced.slice_directory() / HEAD_FILE)
    parts = [head[f"tile{i}.head"] for i in range(sum(name.endswith(".head") for name in head))]
    assert np.array_equal(np.concatenate(parts, axis=1).T, model.tensors[HEAD])


def test_slices_that_fit_are_reused(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """Nothing is written and no progress reported."""
    before = {path: path.stat().st_mtime_ns for path in sliced.split.directory.rglob("*")}
    made = ensure_slices(checkpoint, sliced.split, redo=False, progress=lambda *_: pytest.fail("it sliced"))
    assert not made
    assert {path: path.stat().st_mtime_ns for path in sliced.split.directory.rglob("*")} == before


def test_redo_makes_the_same_slices_again(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """Same checkpoint, same plan, same bytes; with the bytes done and in all as it goes on."""
    before = contents(sliced.split.directory)
    (sliced.slice_directory(0) / "manifest.json").unlink()
    reports: list[tuple[int, int]] = []
    assert ensure_slices(checkpoint, sliced.split, redo=True, progress=lambda *report: reports.append(report))
    assert contents(sliced.split.directory) == before
    done, totals = zip(*reports, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {sum(len(data) for name, data in before.items() if name.endswith(".safetensors"))}
    assert 0.9 * totals[0] < done[-1] <= totals[0]


@pytest.mark.parametrize("what", ["plan", "dtype", "world size"])
def test_slices_of_another_kind_are_refused_and_kept(sliced: SlicedModel, checkpoint: Checkpoint, what: str) -> None:
    """Hours of slicing are never thrown away without --split-bin."""
    other = {
        "plan": replace(sliced.split, plan=make_plan(sliced.spec, "ratio:3,1", 2)),
        "dtype": replace(sliced.split, dtype="bfloat16"),
        "world size": replace(sliced.split, plan=make_plan(sliced.spec, "uniform", 3)),
    }[what]
    before = contents(sliced.split.directory)
    with pytest.raises(SliceMismatch, match="--split-bin"):
        ensure_slices(checkpoint, other, redo=False, progress=no_progress)
    assert contents(sliced.split.directory) == before
    assert ensure_slices(checkpoint, other, redo=True, progress=no_progress)
    assert not ensure_slices(checkpoint, other, redo=False, progress=no_progress)


def test_slices_of_another_model_are_refused(sliced: SlicedModel, tmp_path: Path) -> None:
    """Two models of one shape are told apart."""
    other = slice_model(tmp_path / "other", model=build(layers=1, vocab_size=260, seed=5), world_size=2)
    with pytest.raises(SliceMismatch, match="another model"):
        ensure_slices(open_checkpoint(other.directory), sliced.split, redo=False, progress=no_progress)


def test_one_slice_missing_or_damaged_is_found(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """Every rank's slice is looked at, not only the first one's."""
    os.truncate(sliced.slice_directory(1) / "layer0000.ffn.safetensors", 10)
    with pytest.raises(SliceCorrupt, match="node1"):
        ensure_slices(checkpoint, sliced.split, redo=False, progress=no_progress)
    shutil.rmtree(sliced.slice_directory(1))
    with pytest.raises(SliceError, match="node1 holds no slice"):
        ensure_slices(checkpoint, sliced.split, redo=False, progress=no_progress)


def test_fewer_nodes_leave_no_slice_of_the_larger_plan(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """node1 of a two-node plan is gone after slicing for one; what is not ours stays."""
    (sliced.split.directory / "node-notes").mkdir()
    (sliced.split.directory / "nodes.txt").write_text("mine")
    one = replace(sliced.split, plan=make_plan(sliced.spec, "uniform", 1))
    ensure_slices(checkpoint, one, redo=True, progress=no_progress)
    names = {path.name for path in sliced.split.directory.iterdir()}
    assert names == {LOCK, "coordinator", "node0", "node-notes", "nodes.txt"}


def test_an_unfinished_publication_is_done_again(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """The marker says that what is there is a mixture, however whole each slice looks."""
    before = contents(sliced.split.directory)
    (sliced.split.directory / INCOMPLETE).touch()
    shutil.rmtree(sliced.slice_directory(0))
    assert ensure_slices(checkpoint, sliced.split, redo=False, progress=no_progress)
    assert contents(sliced.split.directory) == before


def test_two_builders_take_turns(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """Who comes second waits for the first one's lock, and then finds the slices made."""
    results: list[bool] = []

    def slice_it() -> None:
        results.append(ensure_slices(checkpoint, sliced.split, redo=False, progress=no_progress))

    lock = os.open(sliced.split.directory / LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    thread = threading.Thread(target=slice_it)
    thread.start()
    thread.join(0.2)
    waited = thread.is_alive() and not results
    os.close(lock)
    thread.join(10)
    assert waited
    assert results == [False]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("redo", [False, True])
def test_a_disk_that_fills_up_leaves_nothing_new_behind(
    sliced: SlicedModel, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, code: int, redo: bool
) -> None:
    """The half-made slices are gone, the old ones still there, and the error says how much is needed."""
    if not redo:
        shutil.rmtree(sliced.split.directory)
    before = contents(sliced.split.directory)
    real_write, calls = os.write, iter(range(12))

    def write(descriptor: int, data: bytes) -> int:
        if next(calls, None) is None:
            raise OSError(code, os.strerror(code))
        return real_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(DiskFull, match=r"no room left in .* need .* GB; free some"):
            ensure_slices(checkpoint, sliced.split, redo=redo, progress=no_progress)
    assert next(calls, None) is None
    assert contents(sliced.split.directory) == before
    assert not (sliced.split.directory / BUILDING).exists()
    assert ensure_slices(checkpoint, sliced.split, redo=False, progress=no_progress) is not redo


def test_a_disk_without_room_is_found_before_anything_is_written(
    sliced: SlicedModel, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody slices for an hour to learn that it does not fit."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(splitter.shutil, "disk_usage", lambda path: usage(10, 10, 5000))
    with pytest.raises(DiskFull, match="--save-dir"):
        ensure_slices(checkpoint, sliced.split, redo=True, progress=lambda *_: pytest.fail("it wrote"))
    monkeypatch.undo()
    assert not ensure_slices(checkpoint, sliced.split, redo=False, progress=no_progress)


def test_another_disk_error_is_a_slice_error_and_leaves_nothing(
    sliced: SlicedModel, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO is no full disk."""

    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(SliceError, match="Input/output error") as caught:
            ensure_slices(checkpoint, sliced.split, redo=True, progress=no_progress)
    assert type(caught.value) is SliceError
    assert not (sliced.split.directory / BUILDING).exists()


def test_a_place_that_cannot_be_written_is_bad_input(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """A file where the directory should be; the way out is named."""
    (sliced.directory / "taken").write_text("")
    request: SplitRequest = replace(sliced.split, directory=sliced.directory / "taken")
    with pytest.raises(InputError, match="--save-dir"):
        ensure_slices(checkpoint, request, redo=False, progress=no_progress)


def test_the_coordinators_slice_is_one_of_them(sliced: SlicedModel) -> None:
    """Rank -1 lies in `coordinator`, the others in node0, node1, as the seed has them."""
    assert sliced.slice_directory(COORDINATOR_RANK).name == "coordinator"
    assert [sliced.slice_directory(rank).name for rank in (0, 1)] == ["node0", "node1"]

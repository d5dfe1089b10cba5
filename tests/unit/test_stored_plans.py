"""Which packs go, when a plan is removed, when room is wanted and when writing fails, and which never do?

Covers: coordinator/slicing/stored_plans.py, room on the disk. Does not cover: what is in packs (test_packed_slices.py),
moving tiles (test_repacking.py), what is printed (test_slices_verb.py).
"""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import DiskFull, InputError, SliceError
from common.weights.pack_store import PackStore
from coordinator.checkpoints.checkpoint import Checkpoint
from coordinator.slicing import splitter
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.stored_plans import drop_unneeded, needed_places, remove_plan, remove_plans, stored_plans
from tests.support.packed_models import contents_of, cut, finely_cut_checkpoint, packed_request


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """Return a model that is cut finely."""
    opened = finely_cut_checkpoint(tmp_path_factory.mktemp("model"))
    yield opened
    opened.close()


@pytest.fixture
def four(checkpoint: Checkpoint, tmp_path: Path) -> SplitRequest:
    """Return what cuts it for four nodes, done."""
    request = packed_request(checkpoint, tmp_path / "split", world_size=4)
    assert cut(checkpoint, request) > 0
    return request


def files(directory: Path) -> dict[str, int]:
    """Return every file of a store with the time of its last change."""
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_leaves_nothing_new_behind(
    checkpoint: Checkpoint, four: SplitRequest, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A full disk is needed by others; the plan that was there works, and with room the next run makes the other."""
    before = files(four.store_directory)
    other = packed_request(checkpoint, four.directory, world_size=5, tile_bytes=200_000)
    real_write, calls = os.write, iter(range(25))

    def write(descriptor: int, data: bytes) -> int:
        if next(calls, None) is None:
            raise OSError(code, os.strerror(code))
        return real_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(DiskFull if code == errno.ENOSPC else SliceError):
            cut(checkpoint, other)
    assert next(calls, None) is None
    assert files(four.store_directory) == before
    assert cut(checkpoint, four) == 0
    assert cut(checkpoint, other) > 0


def test_packs_that_no_plan_needs_go_first_when_room_is_wanted(
    checkpoint: Checkpoint, four: SplitRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a plan needs never do: without enough room it is told what is lacking, before a byte is written."""
    usage = namedtuple("usage", "total used free")
    other = packed_request(checkpoint, four.directory, world_size=5, tile_bytes=200_000)
    monkeypatch.setattr(splitter.shutil, "disk_usage", lambda path: usage(10, 10, 5000))
    with pytest.raises(DiskFull, match=r"need \d+kB more .* has 5kB free"):
        cut(checkpoint, other)
    remove_plans(four.directory, [])
    assert needed_places(four.directory) == set()
    with pytest.raises(DiskFull):
        cut(checkpoint, other)
    left = {pack.name for pack in PackStore(four.store_directory).packs()}
    assert 0 < len(left) < 5, "norms are alike in all plans, and so is their pack of use"


def test_packs_that_no_plan_needs_stay_within_so_many_bytes_the_newest(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """After a plan was removed, what it alone needed can be dropped; what others share with it stays."""
    other = packed_request(checkpoint, four.directory, world_size=3, strategy="ratio:3,1,1")
    added_bytes = cut(checkpoint, other)
    before = contents_of(other.slice_directory(1))
    assert drop_unneeded(four.directory, 0) == 0
    remove_plans(four.directory, [four.plan_name])
    assert drop_unneeded(four.directory, 1 << 30) == 0
    assert drop_unneeded(four.directory, 0) >= added_bytes
    assert cut(checkpoint, four) == 0
    assert cut(checkpoint, other) == added_bytes
    assert contents_of(other.slice_directory(1)) == before


def test_removing_a_plan_gives_back_what_it_has_alone_also_of_packs_that_others_need(
    checkpoint: Checkpoint, four: SplitRequest
) -> None:
    """The other plan's tiles move where they are less than their packs; it is as whole as before."""
    other = packed_request(checkpoint, four.directory, world_size=3, strategy="ratio:3,1,1")
    cut(checkpoint, other)
    before = contents_of(other.slice_directory(0))
    alone_bytes = sum(
        size for place, size in stored_plans(four.directory)[1].places.items()
        if place not in stored_plans(four.directory)[0].places
    )  # fmt: skip
    assert stored_plans(four.directory)[1].name == four.plan_name
    freed_bytes = remove_plan(four.directory, four.plan_name)
    assert 0.9 * alone_bytes <= freed_bytes
    assert contents_of(other.slice_directory(0)) == before
    store = PackStore(four.store_directory)
    assert sum(len(pack.tiles) for pack in store.packs()) == len(needed_places(four.directory))
    assert cut(checkpoint, other) == 0
    assert cut(checkpoint, four) > 0
    for name in ("4", "", "../node0", "4-000000000000"):
        with pytest.raises(InputError, match=rf"has no plan '{name}'; there are: {other.plan_name}, {four.plan_name}"):
            remove_plan(four.directory, name)

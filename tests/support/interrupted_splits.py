"""A program that kills slicing at chosen moments and tells what the next run made of it.

    python -m tests.support.interrupted_splits MODEL_DIRECTORY WORK_DIRECTORY KILL_COUNT SEED FORMAT-SCENARIO...

Prints JSON, a line for each scenario. Each split is a forked child that ends by SIGKILL right before its n-th touch of
the file system (open, write, sync, mkdir, rename, remove): between two of them nothing changes on disk, so these are
all the moments there are. The next run, in this process, must be right. There is no test framework and no thread here:
forking is safe.
Does not cover: power cuts (what was written but not synced is still there after a kill).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import SliceMismatch
from common.model.plan import make_plan
from common.weights.manifest import MANIFEST_NAME
from common.weights.model_encodings import AS_THE_FILE
from common.weights.pack_store import PART
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.slicing.split_request import LOCK, SplitRequest
from coordinator.slicing.splitter import ensure_slices
from tests.support.packed_models import contents_of, plain_encodings

TOUCHES = {"open", "os.truncate", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
"""Audit events of what changes a directory; writes and syncs have none and are wrapped."""
PLAIN, PACKED = "plain", "packed"
"""Formats: block files of one dtype; packs that plans share."""
FRESH, SAME, OTHER = "fresh", "same", "other"
"""What was there before the split that is killed: nothing, the same slices, another plan's slices."""
PUBLISHING_TOUCHES = 24
"""The last so many touches are the renames into place, where most can go wrong: half of all kills."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One checkpoint and two ways to cut it."""

    model: Path
    wanted: SplitRequest
    other: SplitRequest
    redo: bool
    """Whether the split that is killed makes again what is there; other plans of packs lie beside each other."""

    def state(self) -> dict[str, Any]:
        """Return what lies there: of slices in packs the tiles of each plan, whatever packs they are in."""
        directory = self.wanted.directory
        if self.wanted.encodings is None:
            return digests(directory)
        slices = {
            str(path.parent.relative_to(directory)): contents_of(path.parent)
            for path in sorted(directory.glob(f"*/*/{MANIFEST_NAME}"))
        }
        names = sorted(path.name for path in directory.rglob("*") if path.is_file() and path.name != LOCK)
        return {**slices, "left": [name for name in names if name.startswith(".") or name.endswith(PART)]}

    def slice(self, request: SplitRequest, *, redo: bool) -> bool:
        """Run one split as the product does."""
        checkpoint = open_checkpoint(self.model)
        try:
            return ensure_slices(checkpoint, request, redo=redo, progress=lambda done, total: None)
        finally:
            checkpoint.close()


def main(arguments: list[str]) -> int:
    """Run scenarios and print their outcomes; see the module's docstring."""
    os.fsync = lambda fd: None  # a kill loses nothing that was written, so syncing proves nothing here
    model, work, kill_count, seed, *scenarios = arguments
    for name in scenarios:
        slice_format, _, scenario = name.partition("-")
        setting = _setting(Path(model), Path(work, name), slice_format, scenario)
        print(json.dumps(_run(setting, scenario, int(kill_count), random.Random(int(seed)))), flush=True)
    return 0


def _setting(model: Path, work: Path, slice_format: str, scenario: str) -> Setting:
    work.mkdir()
    is_packed = slice_format == PACKED
    checkpoint = open_checkpoint(model)
    requests = [
        SplitRequest(
            plan=make_plan(checkpoint.spec, strategy, 2),
            dtype=AS_THE_FILE if is_packed else "float32",
            tile_bytes=8192,
            encodings=plain_encodings(checkpoint.spec) if is_packed else None,
            directory=work / "split",
        )
        for strategy in ("uniform", "ratio:3,1")
    ]
    checkpoint.close()
    redo = scenario != FRESH and not (is_packed and scenario == OTHER)
    return Setting(model=model, wanted=requests[0], other=requests[1], redo=redo)


def digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `directory` but the lock."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def _run(setting: Setting, scenario: str, kill_count: int, source: random.Random) -> dict[str, Any]:
    directory = setting.wanted.directory
    _prepare(setting, scenario)
    setting.slice(setting.wanted, redo=setting.redo)
    right = setting.state()
    _prepare(setting, scenario)
    touch_count = _touches_of(setting, scenario)
    last = list(range(max(1, touch_count - PUBLISHING_TOUCHES), touch_count + 1))
    moments = source.sample(last, min(len(last), kill_count // 2))
    moments += source.sample(range(1, touch_count + 1), kill_count - len(moments))
    outcomes = []
    for moment in sorted(moments):
        _prepare(setting, scenario)
        before = setting.state() if directory.exists() else {}
        signal_number = _killed_split(setting, scenario, moment)
        outcomes.append({"moment": moment, "signal": signal_number, **_next_run(setting, right, before)})
    return {"touches": touch_count, "outcomes": outcomes}


def _prepare(setting: Setting, scenario: str) -> None:
    """Put there what the scenario begins with; slices are made once and copied afterwards."""
    directory = setting.wanted.directory
    shutil.rmtree(directory, ignore_errors=True)
    if scenario == FRESH:
        return
    made = directory.with_name("made")
    if not made.exists():
        setting.slice(setting.wanted if scenario == SAME else setting.other, redo=True)
        os.rename(directory, made)
    shutil.copytree(made, directory)


def _touches_of(setting: Setting, scenario: str) -> int:
    """Run an undisturbed split in a child and return how often it touches the file system."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        counter = [0]
        watch_touches(lambda: counter.__setitem__(0, counter[0] + 1))
        setting.slice(setting.wanted, redo=setting.redo)
        os._exit(0 if _really_write(writing, str(counter[0]).encode()) else 1)
    os.waitpid(child, 0)
    os.close(writing)
    count = int(os.read(reading, 20))
    os.close(reading)
    return count


def _killed_split(setting: Setting, scenario: str, moment: int) -> int:
    """Split in a child that is killed at its `moment`-th touch; return the signal that ended it, 0 if none did."""
    child = os.fork()
    if child == 0:
        left = [moment]

        def touch() -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        watch_touches(touch)
        setting.slice(setting.wanted, redo=setting.redo)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


_really_write = os.write


def watch_touches(touch: Callable[[], None]) -> None:
    """Call `touch` before each change of the file system, for the rest of this process."""

    def write(descriptor: int, data: Any) -> int:
        touch()
        return _really_write(descriptor, data)

    def write_at(descriptor: int, data: Any, position: int) -> int:
        touch()
        return really_write_at(descriptor, data, position)

    really_write_at = os.pwrite
    sys.addaudithook(lambda event, arguments: touch() if event in TOUCHES else None)
    os.write, os.pwrite = write, write_at
    os.fsync = lambda fd: touch()


def _next_run(setting: Setting, right: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Run again, without --split-bin where that is allowed, and say what came of it."""
    try:
        setting.slice(setting.wanted, redo=False)
    except SliceMismatch:
        # Slices of another plan: they must be exactly those that were there before the killed run.
        kept = setting.state() == before
        setting.slice(setting.wanted, redo=True)
        return {"right": kept and setting.state() == right, "kept": kept}
    return {"right": setting.state() == right, "kept": False}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

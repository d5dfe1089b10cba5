"""Does `coordinator-cli slices` say what plans lie here, and does removing one give back what it says?

Covers: coordinator/cli/slices.py. Does not cover: what goes (test_stored_plans.py), how tables look (test_screens.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import EXIT_INPUT
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.splitter import ensure_slices
from tests.support.cli import Finished, run_here
from tests.support.documented_keys import documented, keys
from tests.support.packed_models import finely_cut_checkpoint, packed_request
from tests.support.sliced_models import no_progress, slice_checkpoint

Run = Callable[..., Finished]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model's directory."""
    finely_cut_checkpoint(tmp_path, layers=1).close()
    return tmp_path


@pytest.fixture
def typed(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `coordinator-cli slices` for it in this process."""

    def run(*words: str) -> Finished:
        return run_here("coordinator-cli", ["slices", "--model", str(model), *words], monkeypatch, capsys)

    return run


def cut(model: Path, *world_sizes: int) -> list[SplitRequest]:
    """Cut it for so many nodes, one after another."""
    checkpoint = finely_cut_checkpoint(model, layers=1)
    requests = [packed_request(checkpoint, model / "split", world_size=size) for size in world_sizes]
    for request in requests:
        ensure_slices(checkpoint, request, redo=False, progress=no_progress)
    checkpoint.close()
    return requests


def document(finished: Finished) -> Any:
    """Return what stands on stdout."""
    assert (finished.code, finished.err, finished.out.count("\n")) == (0, "", 1)
    return json.loads(finished.out)


def test_plans_are_listed_with_what_they_take_and_what_each_has_alone(model: Path, typed: Run) -> None:
    """Two and four share all, five nodes cut through cells; the document has the documented keys."""
    requests = cut(model, 2, 4, 5)
    found = document(typed("--json"))
    assert keys(found) == documented("slices")
    assert [one["name"] for one in found["plans"]] == [request.plan_name for request in requests]
    two, four, five = (one["alone_bytes"] for one in found["plans"])
    assert (two, four) == (0, 0)
    assert 0 < five < found["plans"][2]["slice_bytes"] / 2
    listed = typed()
    assert re.search(rf"{requests[2].plan_name} +5 +uniform +gguf +\d MB +\d+ kB", listed.out)
    assert re.search(r"3 plans in .*split: \d MB on disk, of which 0 kB no plan needs", listed.err)


def test_a_plan_is_removed_by_its_name(model: Path, typed: Run) -> None:
    """The others stay; a name that there is not is answered with those that there are."""
    four, five = cut(model, 4, 5)
    alone_bytes = document(typed("--json"))["plans"][1]["alone_bytes"]
    before = document(typed("--json"))["disk_bytes"]
    assert f"{five.plan_name} is removed" in typed("--remove", five.plan_name).err
    after = document(typed("--json"))
    assert [one["name"] for one in after["plans"]] == [four.plan_name]
    assert before - after["disk_bytes"] >= 0.9 * alone_bytes
    line = typed("--remove", five.plan_name).error_line("coordinator-cli", EXIT_INPUT)
    assert f"there are: {four.plan_name}" in line


def test_where_there_is_no_plan_it_says_what_there_is(model: Path, typed: Run) -> None:
    """Nothing, or slices of one dtype, which have one plan and no names."""
    assert "no slices in" in typed().err
    assert document(typed("--json"))["plans"] == []
    slice_checkpoint(model, model / "split")
    assert "has slices of one dtype" in typed().err
    assert document(typed("--json"))["has_slices_of_one_dtype"]
    assert "there is none" in typed("--remove", "x").error_line("coordinator-cli", EXIT_INPUT)

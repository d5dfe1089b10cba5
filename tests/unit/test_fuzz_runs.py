"""Does `make fuzz` notice what it is there to notice, and go on?

Covers: tests/fuzz/runs.py and tests/fuzz/mutations.py, with readers that fail in each way.
Does not cover: the readers that there are (tests/fuzz/readers.py), which `make fuzz` tries.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from common.errors import InputError, InternalError
from tests.fuzz import runs
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import Reader
from tests.fuzz.runs import Stretch, run


def refuse(data: bytes) -> None:
    """Fail as readers may."""
    raise InputError("this is no model")


def mistake(data: bytes) -> None:
    """Fail as no reader may."""
    raise KeyError("x")


def ours(data: bytes) -> None:
    """Fail in a way that is our mistake."""
    raise InternalError("never")


def die(data: bytes) -> None:
    """Take the process along."""
    os.abort()


def loop(data: bytes) -> None:
    """Never end."""
    while True:
        pass


def allocate(data: bytes) -> None:
    """Take more memory than there is for it."""
    bytearray(1 << 40)


@pytest.mark.parametrize(
    ("read", "count"), [(refuse, 0), (len, 0), (mistake, 3), (ours, 3), (die, 3), (loop, 3), (allocate, 3)]
)
def test_whatever_is_more_than_a_sentence_is_found_and_kept(
    read: runs.Read, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three inputs each, also after one that ended the process."""
    monkeypatch.setattr(runs, "all_readers", lambda directory: [Reader(name="x", seeds=(b"seed",), read=read)])
    monkeypatch.setattr(runs, "call_readers", lambda directory: [])
    monkeypatch.setattr(runs, "SECONDS", 0.1)
    tried, found = run(Stretch(seed=1, start=5, stop=8, step=1), tmp_path / "kept")
    assert (tried, [one.index for one in found]) == (3, [5, 6, 7][:count])
    assert len(list(tmp_path.glob("kept/*.bin"))) == count


def test_the_same_seed_makes_the_same_hostile_input() -> None:
    """So that whoever reads of one can try it."""
    good = json.dumps({"sizes": [1, 2, 3], "name": "x"}).encode()
    made = [mutated(good, random.Random(f"7:{index}")) for index in range(200)]
    assert made == [mutated(good, random.Random(f"7:{index}")) for index in range(200)]
    assert len(set(made)) > 150

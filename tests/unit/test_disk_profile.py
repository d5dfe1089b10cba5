"""Is a disk asked once what it wants, and is what it said kept, checked and no more than needed?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.weights import disk_profile as subject
from common.weights.disk_profile import DISK_NAME, disk_profile
from common.weights.reader import TileRange

MIB = 1 << 20


def pretend(monkeypatch: pytest.MonkeyPatch, rates: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Give the disk these rates by (depth, MiB of a read); return the list of what is asked."""
    asked: list[tuple[int, int]] = []

    def rate(self: object, depth: int, read_bytes: int) -> float:
        asked.append((depth, read_bytes // MIB))
        return rates[asked[-1]]

    monkeypatch.setattr(subject._Probe, "rate", rate)
    return asked


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({(1, 4): 100, (2, 4): 80, (4, 4): 70, (1, 1): 60, (1, 8): 103}, (1, 4)),  # spinning: one at a time
        ({(1, 4): 40, (2, 4): 45, (4, 4): 45, (2, 1): 44, (2, 8): 45}, (2, 1)),  # eMMC: small reads do
        ({(1, 4): 900, (2, 4): 1500, (4, 4): 2600, (4, 1): 1400, (4, 8): 3000}, (4, 8)),  # NVMe: many and large
    ],
)
def test_the_fewest_and_smallest_reads_that_are_fast_enough_are_taken(
    rates: dict[tuple[int, int], float], expected: tuple[int, int],
    tiles: list[TileRange], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Within a few per cent of the best."""
    pretend(monkeypatch, rates)
    profile = disk_profile(tmp_path, tiles)
    assert (profile.reads_in_flight, profile.read_bytes // MIB) == expected
    assert profile.bytes_per_second == rates[expected]


def test_what_was_measured_is_kept_for_its_own_disk_only(
    tiles: list[TileRange], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second start asks nothing; a slice that was copied to another disk, or a damaged file, is measured again."""
    asked = pretend(monkeypatch, {(depth, size): 1.0 for depth in (1, 2, 4) for size in (1, 4, 8)})
    first = disk_profile(tmp_path, tiles)
    count = len(asked)
    assert disk_profile(tmp_path, tiles) == first
    assert len(asked) == count
    kept = json.loads((tmp_path / DISK_NAME).read_text())
    for damaged in ("", "{}", "[]", json.dumps({**kept, "device": 1}), json.dumps({**kept, "reads_in_flight": 0}),
                    json.dumps({**kept, "reads_in_flight": 10**9}), json.dumps({**kept, "read_bytes": 5}),
                    json.dumps({**kept, "reads_in_flight": "2"})):  # fmt: skip
        (tmp_path / DISK_NAME).write_text(damaged)
        asked.clear()
        assert disk_profile(tmp_path, tiles) == first
        assert len(asked) == count


def test_a_real_disk_is_measured_in_the_time_it_is_given(
    tiles: list[TileRange], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every combination really reads the slice's files."""
    monkeypatch.setattr(subject, "PROBE_SECONDS", 0.005)
    profile = disk_profile(tmp_path, tiles)
    assert profile.bytes_per_second > 1000
    assert profile.device == tmp_path.stat().st_dev

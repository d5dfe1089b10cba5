"""Is a device measured once, and again only where the old figures are of something else?

Covers: what is kept and trusted; the disk is a real one. Does not cover: all rates of a real device
(tests/contract/test_measured_devices.py).
"""

from __future__ import annotations

import fcntl
import json
import math
from pathlib import Path
from unittest import mock

import pytest

from common.compute import matmul
from common.compute.device_speeds import SPEEDS_FILE, DeviceSpeeds, device_speeds, kept_speeds, measure_apart
from common.errors import ResourceError
from common.native.library import absent
from protos.shardmesh.v1 import mesh_pb2

NO_PROCESSOR = mock.patch("common.compute.device_speeds._Processor", **{"return_value.rates.return_value": (1e9, 1e9)})


def test_a_device_is_measured_once(tmp_path: Path) -> None:
    """The scratch file goes; the second time nothing is measured."""
    told: list[str] = []
    with NO_PROCESSOR, mock.patch("common.compute.device_speeds.TURNS", 1):
        speeds = device_speeds(tmp_path, told.append)
    assert 1e6 < speeds.disk_bytes_per_second < 1e12
    assert [path.name for path in tmp_path.iterdir()] == [SPEEDS_FILE]
    assert device_speeds(tmp_path, told.append) == speeds
    assert len(told) == 1


def test_a_measurement_that_was_given_up_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    """Its process is killed with its scratch file, 100 MB; that of another, which still measures, stays."""
    with (tmp_path / ".speed-other").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        (tmp_path / ".speed-killed").touch()
        with pytest.raises(ResourceError, match="could not be measured"):
            measure_apart(tmp_path, is_wanted=lambda: False)
        assert [path.name for path in tmp_path.iterdir()] == [".speed-other"]
    with NO_PROCESSOR, mock.patch("common.compute.device_speeds.TURNS", 1):
        device_speeds(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [SPEEDS_FILE]


def test_a_device_without_kernels_is_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes with torch; numpy's products stand for its."""
    monkeypatch.setattr(matmul, "kernels", absent("a test wants none"))
    for name, value in (("TURNS", 1), ("LOOKS", 1), ("MOST_WEIGHT_BYTES", 1 << 24)):
        monkeypatch.setattr(f"common.compute.device_speeds.{name}", value)
    speeds = device_speeds(tmp_path)
    assert speeds.memory_bytes_per_second > 1e6
    assert speeds.arithmetic_per_second > 1e6


@pytest.mark.parametrize("rate", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_a_rate_that_no_device_has_counts_for_nothing(rate: float) -> None:
    """A peer may tell anything."""
    told = mesh_pb2.Device(memory_bytes_per_second=rate, disk_bytes_per_second=1e9)
    assert DeviceSpeeds.told_by(told) == DeviceSpeeds(disk_bytes_per_second=1e9)


def test_figures_of_another_machine_or_nonsense_count_for_nothing(tmp_path: Path) -> None:
    """More cores, another disk, a negative rate, no JSON at all."""
    assert kept_speeds(tmp_path) is None
    with NO_PROCESSOR, mock.patch("common.compute.device_speeds._disk_rate", return_value=1e9):
        device_speeds(tmp_path)
    good = json.loads((tmp_path / SPEEDS_FILE).read_text())
    assert kept_speeds(tmp_path) is not None
    for changes in (
        {"cores": good["cores"] + 1},
        {"disk": -1},
        {"format": 0},
        {"memory_bytes_per_second": -1},
        {"x": 1},
    ):
        (tmp_path / SPEEDS_FILE).write_text(json.dumps({**good, **changes}))
        assert kept_speeds(tmp_path) is None, changes
    (tmp_path / SPEEDS_FILE).write_text("{")
    assert kept_speeds(tmp_path) is None
    assert DeviceSpeeds().memory_bytes_per_second == 0

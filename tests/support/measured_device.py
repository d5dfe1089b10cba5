"""Lets one `shardnode join` of a test run measure this device; the others find what it kept, as they would after that.

    with measured_once(data_directory):
        ...                             # shardnode join --data-dir data_directory

Covers: device.json only, which the product itself trusts where cores and disk are the same.
Does not cover: measuring (tests/unit/test_device_speeds.py), meshes whose speeds are what is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.device_speeds import SPEEDS_FILE

_kept: list[bytes] = []
_first = threading.Lock()


@contextmanager
def measured_once(data_directory: Path) -> Iterator[None]:
    """Have a device's speeds lie in `data_directory`, unless this is the first to join: then it measures them."""
    with _first:
        if not _kept:
            yield
            measured = data_directory / SPEEDS_FILE
            if measured.exists():  # not when it was not let in
                _kept.append(measured.read_bytes())
            return
    data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_directory / SPEEDS_FILE).write_bytes(_kept[0])
    yield

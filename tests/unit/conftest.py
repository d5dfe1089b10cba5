"""What several tests of this folder begin with: tiles on disk, and a watch that nothing is left of reading them.

Does not cover: other folders' fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.weights.reader import TileRange
from tests.support.tiles_on_disk import nothing_leaks, write_tiles


@pytest.fixture
def tiles(tmp_path: Path) -> list[TileRange]:
    """Seven tiles in two files."""
    return write_tiles(tmp_path)


@pytest.fixture
def reads_leave_nothing() -> Iterator[None]:
    """Fail a test after which a reader thread or a file descriptor is left."""
    with nothing_leaks():
        yield

"""Where a program keeps what it must find again after a restart, unless it is told."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory(part: str) -> Path:
    """Return systemd's directory in a service, else the user's own for this part of the mesh (XDG base directories)."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home, "shardmesh", part)

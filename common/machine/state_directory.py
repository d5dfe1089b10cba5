"""Where a program keeps what it must find again after a restart, unless it is told."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from common.errors import InputError


def state_directory(part: str) -> Path:
    """Return systemd's directory in a service, else the user's own for this part of the mesh (XDG base directories)."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(os.path.expanduser(home), "shardmesh", part)


def check_own(directory: Path) -> None:
    """Refuse to write as root below a directory of another user: the service that runs as that user could not read it.

    Raises: InputError.
    """
    if os.geteuid() != 0 or not directory.exists() or (owner := _owner(directory)) == 0:
        return
    try:
        user = pwd.getpwuid(owner).pw_name
    except KeyError:
        user = f"#{owner}"
    raise InputError(f"{directory} belongs to the user {user}, who could not read what root writes there; do it as "
                     f"that user: runuser -u {user} -- COMMAND")  # fmt: skip


def _owner(directory: Path) -> int:
    return directory.stat().st_uid

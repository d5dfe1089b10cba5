"""Where a program keeps what it must find again after a restart, unless it is told."""

from __future__ import annotations

import os
import pwd
import shlex
from contextlib import suppress
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


def check_directory(directory: Path, *, has_keys: bool = True) -> None:
    """Refuse a directory of keys that other users may enter, as ssh refuses such a key. One that is not there is good.

    One that is empty, and this user's, is closed to others instead: nobody can have got anything from it.
    What is in it decides who belongs to a mesh, and whoever reaches its socket is the mesh's owner.
    Args: has_keys: else others may look into it, and not write. Raises: InputError.
    """
    try:
        mode = directory.stat().st_mode & 0o777
    except OSError:
        return
    if not mode & (0o077 if has_keys else 0o022):
        return
    with suppress(OSError):
        if has_keys and not os.listdir(directory):
            directory.chmod(0o700)
            return
    may = "write" if mode & 0o022 else "enter" if mode & 0o011 else "list"
    raise InputError(f"others may {may} {directory} (mode {mode:04o}), which keys of this mesh lie in; type: "
                     f"chmod {'700' if has_keys else 'go-w'} {shlex.quote(str(directory))}")  # fmt: skip


def _owner(directory: Path) -> int:
    return directory.stat().st_uid

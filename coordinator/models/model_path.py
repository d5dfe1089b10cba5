"""May this process read a model's files; and if not, as which user, and from where could it?

Covers: the path as the coordinator program sees it, which may be another user than the one who types, and as a service
has no /home and a /tmp of its own. Does not cover: what is in the files (checkpoints/).
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from common.errors import InputError

PLACES = ("/srv/models", "/srv", "/Users/Shared", "/usr/local/share")
"""Where an operator puts what services read; the first that is there and can be read is named."""
READ_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja")
"""Of what a model is read from, in lower case; other files beside it are nobody's matter."""


def check_readable(model: Path) -> None:
    """Raise InputError, with this user's name and a place that works, unless a model's files can be read here."""
    blocked = _first_unreadable(model)
    if blocked is not None:
        user = user_name()
        what, why = blocked
        raise InputError(f"the coordinator runs as the user {user}, who cannot read {what} ({why}); have {user} read "
                         f"it, or copy the model to where {user} can: {readable_place() / model.name}")  # fmt: skip


def user_name() -> str:
    """Return the user that this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"


def readable_place() -> Path:
    """Return a directory that this process can read and that models may be put into."""
    found = [Path(place) for place in PLACES if _why_not(Path(place)) is None]
    return found[0] if found else Path("/")


def _first_unreadable(model: Path) -> tuple[Path, str] | None:
    """Return the first file that is in the way, and why."""
    if (why := _why_not(model)) is not None:
        return model, why
    if not model.is_dir():
        return None
    for path in sorted(model.iterdir()):
        if path.suffix.lower() in READ_SUFFIXES and (why := _why_not(path)) is not None:
            return path, why
    return None


def _why_not(path: Path) -> str | None:
    """Return why a file or a directory cannot be read, in the system's words; None: it can be."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                next(entries, None)
            os.stat(path / ".")
        else:
            with path.open("rb"):
                pass
    except OSError as error:
        return error.strerror or type(error).__name__
    return None

"""Files that a mesh cannot be without: each has a checksum, and a copy beside it that is as new.

    write_state(directory / "members.json", content)           # members.json.copy first, then members.json
    kept = read_state(directory / "members.json", parse)       # from the copy where the file is damaged or gone

A checksum stands within the file, so that no crash parts the two: as the last key of JSON, as a last line in PEM. So
what lies there is JSON and PEM as before: builds that know no checksums read it, and theirs, without one, are read.
The copy holds the same, not what was before: from what was before, a node that has been removed would come back.

Covers: writing, reading, damage told in the log and counted. Does not cover: what can be made again or is looked at by
its hash (slices, speeds), which has no copy; how a file is replaced (common/machine/durable_files.py).
Safe to call from several threads, and from programs that only read; two writers of one file need a lock of their own.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from common.errors import ShardmeshError
from common.machine.durable_files import replace_private
from common.program.logs import entry

COPY = ".copy"
DAMAGE = (
    ShardmeshError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError
)  # fmt: skip
"""What readers of damaged content raise."""
_IN_JSON = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\s*\Z')
_IN_TEXT = re.compile(rb"# sha256: ([0-9a-f]{64})\n\Z")

T = TypeVar("T")
log = logging.getLogger(__name__)
_told: set[tuple[Path, str]] = set()


class ChecksumDiffers(ValueError):
    """A file is not what was written."""

    def __str__(self) -> str:
        return "its checksum is another one"


def copy_of(path: Path) -> Path:
    """Return where the copy of a file lies."""
    return path.with_name(path.name + COPY)


def is_there(path: Path) -> bool:
    """Tell whether there is something of a file: itself, or its copy."""
    return path.exists() or copy_of(path).exists()


def damaged_count() -> float:
    """Return how many files this process has found damaged or gone, each once a reason."""
    return float(len(_told))


def write_state(path: Path, content: bytes) -> None:
    """Replace a file, the copy first: where that fails, nothing has changed; where it stops after it, the file counts.

    Raises: OSError: the file is as before.
    """
    whole = sealed(content)
    replace_private(copy_of(path), whole)
    replace_private(path, whole)


def remove_state(path: Path) -> None:
    """Remove a file and its copy, the copy first: else it would stand for the file. Raises: OSError."""
    copy_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def read_state(path: Path, parse: Callable[[bytes], T]) -> T:
    """Return what `parse` makes of a file, or else of its copy.

    Raises: FileNotFoundError: neither is there; else what the file itself has raised: OSError, or one of DAMAGE.
    """
    try:
        return parse(unsealed(path.read_bytes()))
    except (OSError, *DAMAGE) as error:
        with suppress(OSError, *DAMAGE):
            found = parse(unsealed(copy_of(path).read_bytes()))
            _tell(path, error)
            return found
        if isinstance(error, FileNotFoundError) and copy_of(path).exists():
            raise ValueError("it is gone, and its copy is damaged") from error
        raise


def mend_state(path: Path, parse: Callable[[bytes], object]) -> None:
    """Have file and copy be the same again, and have a checksum; for who alone writes them. Nothing where neither is.

    What a writer has left that was killed goes.

    Raises: as read_state, but for files that are not there; OSError: they cannot be written.
    """

    def whole(content: bytes) -> bytes:
        parse(content)
        return content

    for name in (path.name, path.name + COPY):
        for left in path.parent.glob(f".{name}-????????"):
            left.unlink(missing_ok=True)
    try:
        content = read_state(path, whole)
    except FileNotFoundError:
        return
    if [_bytes_of(path), _bytes_of(copy_of(path))] != [sealed(content)] * 2:
        write_state(path, content)


def is_sealed(path: Path) -> bool:
    """Tell whether a file was written with a checksum, whatever that says."""
    content = _bytes_of(path) or b""
    return bool(_seal_of(content))


def sealed(content: bytes) -> bytes:
    """Return content with its checksum: JSON of one object, or text."""
    if content.startswith(b"{"):
        body = content.rstrip().removesuffix(b"}").rstrip()
        return body + b',\n "sha256": "%s"\n}' % _sum(body)
    text = content if content.endswith(b"\n") or not content else content + b"\n"
    return text + b"# sha256: %s\n" % _sum(text)


def unsealed(whole: bytes) -> bytes:
    """Return content without its checksum; as it is, where it has none. Raises: ChecksumDiffers."""
    seal = _seal_of(whole)
    if seal is None:
        return whole
    body = whole[: seal.start()]
    if _sum(body) != seal[1]:
        raise ChecksumDiffers
    return body + b"\n}" if seal.re is _IN_JSON else body


def _seal_of(whole: bytes) -> re.Match[bytes] | None:
    return (_IN_JSON if whole.startswith(b"{") else _IN_TEXT).search(whole)


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode("ascii")


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _tell(path: Path, error: BaseException) -> None:
    why = getattr(error, "strerror", None) or str(error)
    if (path, why) not in _told:
        _told.add((path, why))
        log.error("%s", entry("state is damaged and its copy is used", path=path, error=why))

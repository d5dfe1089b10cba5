"""Which files are GGUF, and which one of a directory is meant?

Covers: names in any spelling, names without a suffix (the first bytes tell), models that are split into parts.
Does not cover: what is in the files (gguf_file.py), directories of Hugging Face (model_place.py).
Source: llama.cpp's names of parts, `NAME-00001-of-00003.gguf`.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import CheckpointError, ModelNotFound

MAGIC = b"GGUF"
"""The first bytes of every such file."""
SUFFIX = ".gguf"

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
_NAMED_AT_MOST = 4
"""Files that an error lists."""


def is_gguf(path: Path) -> bool:
    """Say whether a file is GGUF, by its name or else by its first bytes; what cannot be read is not.

    Raises: PermissionError: this user may not look.
    """
    return path.suffix.lower() == SUFFIX or _begins_as_gguf(path)


def plain_name(path: Path) -> str:
    """Return a file's name without GGUF's suffix and without the number of a part."""
    match = _PART.fullmatch(path.name)
    if match is not None:
        return match["stem"]
    return path.stem if path.suffix.lower() == SUFFIX else path.name


def first_part(path: Path) -> Path:
    """Return the file to begin with: the first part of a model in parts, else the file itself.

    Raises: CheckpointError: the first part is missing.
    """
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) < 2 or int(match["number"]) == 1:
        return path
    first = path.with_name(_part_name(match, 1))
    if not first.is_file():
        raise CheckpointError(f"{first} is missing, the first of {int(match['count'])} parts; download it again")
    return first


def part_paths(path: Path, count: int) -> list[Path]:
    """Return where the parts of a model lie, in their order.

    Args: path: its first part. count: how many parts the file itself says there are.
    Raises: CheckpointError: the file is not named as a first part, or another part is missing.
    """
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count or int(match["number"]) != 1:
        raise CheckpointError(f"{path} is one of {count} parts, and not named as the first of them; its name must end "
                              f"in -00001-of-{count:05d}.gguf, and the others lie beside it")  # fmt: skip
    paths = [path.with_name(_part_name(match, number)) for number in range(1, count + 1)]
    for part in paths:
        if not part.is_file():
            raise CheckpointError(f"{part} is missing, one of {count} parts; download it again")
    return paths


def only_gguf(directory: Path) -> Path | None:
    """Return the one GGUF model of a directory, or None when there is none.

    Raises: ModelNotFound: there are several. CheckpointError: the directory cannot be read, or a first part is missing.
    """
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}") from error
    found = [path for path in files if path.suffix.lower() == SUFFIX] or [path for path in files if is_gguf(path)]
    models = [path for path in found if not _belongs_to_another(path, found)]
    if len(models) > 1:
        listed = ", ".join(path.name for path in models[:_NAMED_AT_MOST])
        more = f" and {len(models) - _NAMED_AT_MOST} more" if len(models) > _NAMED_AT_MOST else ""
        raise ModelNotFound(f"{directory} holds {len(models)} .gguf files: {listed}{more}; name the one to use, such "
                            f"as {models[0]}")  # fmt: skip
    return first_part(models[0]) if models else None


def _belongs_to_another(path: Path, found: list[Path]) -> bool:
    """Say whether a file is a part of a model of which an earlier part was found too."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return False
    return any(path.with_name(_part_name(match, number)) in found for number in range(1, int(match["number"])))


def _part_name(match: re.Match[str], number: int) -> str:
    return f"{match['stem']}-{number:05d}-of-{match['count']}{match['suffix']}"


def _begins_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except PermissionError:
        raise  # another user may read it
    except OSError:
        return False

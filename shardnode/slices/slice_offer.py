"""What is a slice that a node is offered, and what does the node say of it? Text of a peer, read with distrust.

Covers: descriptions and names of slices; what is here of one. Does not cover: files (slice_store.py, packed_slices.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import InputError
from common.weights.manifest import FileEntry
from common.weights.slice_description import SliceDescription

MAX_DESCRIPTION_BYTES = 16 << 20
SLICE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class HeldSlice:
    """One slice here."""

    slice_id: str
    byte_count: int
    is_whole: bool


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """What is here of one file: its digests once it was verified."""

    byte_count: int
    digests: FileEntry | None = None


@dataclass(frozen=True, kw_only=True)
class LackingPack:
    """A pack of tiles that are not here, and how many of its bytes are."""

    name: str
    byte_count: int
    tiles: Sequence[int]
    """By their numbers in the slice."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What is here of a slice that was offered."""

    slice_id: str
    is_whole: bool
    files: Mapping[str, Arrived] = field(default_factory=dict)
    packs: Sequence[LackingPack] = ()


def description_of(text: bytes) -> SliceDescription:
    """Return what a peer describes. Raises: InputError: no node's slice can be so."""
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise InputError("the description of a slice is longer than any can be")
    try:
        description = SliceDescription.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the description of a slice is no JSON: {error}") from error
    if description.rank < 0:
        raise InputError("the coordinator's own slice does not belong on a node")
    return description


def checked_id(slice_id: str) -> str:
    """Return what names a slice, and may be part of a path. Raises: InputError: it names none."""
    if not SLICE_ID.fullmatch(slice_id):
        raise InputError(f"'{slice_id[:60]}' names no slice")
    return slice_id

"""Slices as builds before XXH3 made them: the same files, and a manifest that names SHA-256 only.

Covers: taking what is new out of a manifest. Does not cover: slices that such a build did make (made_by_e3cc05c).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.weights.manifest import MANIFEST_NAME, FileEntry, read_manifest


def make_older(directory: Path) -> None:
    """Write a slice's manifest as it was written before."""
    manifest = read_manifest(directory)
    files = {name: older(entry) for name, entry in manifest.files.items()}
    (directory / MANIFEST_NAME).write_text(replace(manifest, files=files).text(), encoding="utf-8")


def older(entry: FileEntry) -> FileEntry:
    """Return an entry without what is new in it."""
    return replace(entry, tile_xxh3=())

"""What a slice directory says of itself: model, plan, rank, dtype, and the digest of every file and tile.

Covers: the text of manifest.json, reading it with distrust, telling what differs from what was asked for.
Does not cover: making slices (coordinator/slicing/splitter.py), reading weights (reader.py), packs (packs.py).

A checksum per tile lets a node check each tile when it first reads it, so that no flipped byte is ever
computed with: XXH3, or SHA-256 in slices from before it was written. The digest per file is for shipping. A digest of
the manifest's own body, stored in it, finds a flipped byte there too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from common.errors import InputError, SliceCorrupt, SliceError, SliceMismatch
from common.model.model_spec import canonical_json
from common.model.plan import Plan, RankShare
from common.weights.checksums import SHA256, XXH3, Checksum
from common.weights.pack_store import Found, store_of
from common.weights.packs import SliceTile, StoredTile, stored_of, stored_text
from common.weights.slice_description import (
    COORDINATOR_RANK,
    EMBEDDING_FILE,
    HEAD_FILE,
    NORMS_FILE,
    SliceDescription,
)
from common.weights.slice_format import FORMAT_VERSIONS, FileLayout
from common.wording import counted

__all__ = [
    "COORDINATOR_RANK", "EMBEDDING_FILE", "HEAD_FILE", "NORMS_FILE", "FileEntry", "SliceManifest", "check_belongs",
    "read_manifest",
]  # fmt: skip

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 64 << 20
XXH3_KEY = "tile_xxh3_64"
"""May be left out. Readers that do not know it pass over it, so it needs no version of its own."""
_XXH3 = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """Size and digests (SHA-256, hex) of one file, and what its tiles are checked by when they are read."""

    size_bytes: int
    sha256: str
    tile_sha256: tuple[str, ...]
    tile_xxh3: tuple[str, ...] = ()
    """None for a file from before; else one for each tile."""

    @property
    def tile_checksums(self) -> tuple[Checksum, ...]:
        """What each tile's bytes must give at their first read."""
        kind, values = (XXH3, self.tile_xxh3) if self.tile_xxh3 else (SHA256, self.tile_sha256)
        return tuple(Checksum(kind=kind, value=value) for value in values)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        value = {"size_bytes": self.size_bytes, "sha256": self.sha256, "tile_sha256": list(self.tile_sha256)}
        return {**value, XXH3_KEY: list(self.tile_xxh3)} if self.tile_xxh3 else value

    @classmethod
    def from_json(cls, value: Any) -> FileEntry:
        """Read what `to_json` wrote. Raises: KeyError, TypeError, ValueError: it is something else."""
        tiles = tuple(str(digest) for digest in value["tile_sha256"])
        return cls(
            size_bytes=int(value["size_bytes"]), sha256=str(value["sha256"]), tile_sha256=tiles,
            tile_xxh3=_xxh3_of_tiles(value[XXH3_KEY], len(tiles)) if XXH3_KEY in value else (),
        )  # fmt: skip


def _xxh3_of_tiles(value: Any, tile_count: int) -> tuple[str, ...]:
    """Return what a manifest says under XXH3_KEY. Raises: ValueError: it is something else."""
    is_right = isinstance(value, list) and all(isinstance(one, str) and _XXH3.fullmatch(one) for one in value)
    if not is_right or len(value) != tile_count:
        raise ValueError(f"{XXH3_KEY} is no list of {counted(tile_count, 'checksum')}")
    return tuple(value)


@dataclass(frozen=True, kw_only=True)
class SliceManifest(SliceDescription):
    """Everything a reader must know of one slice directory: what the slice is, and the digests of its files."""

    files: dict[str, FileEntry]
    """None of a slice whose tiles lie in packs."""
    tiles: dict[str, tuple[StoredTile, ...]] = field(default_factory=dict)
    """By block: where its tiles lie, where that is in packs."""
    pack_bytes: dict[str, int] = field(default_factory=dict)
    """Sizes of those packs."""

    @classmethod
    def of(cls, about: SliceDescription, files: dict[str, FileEntry]) -> SliceManifest:
        """Return the manifest of a slice whose files have these digests."""
        return cls(**{part.name: getattr(about, part.name) for part in fields(SliceDescription)}, files=files)

    @classmethod
    def of_tiles(
        cls, about: SliceDescription, tiles: dict[str, tuple[StoredTile, ...]], pack_bytes: dict[str, int]
    ) -> SliceManifest:  # fmt: skip
        """Return the manifest of a slice whose tiles lie there."""
        return replace(cls.of(about, {}), tiles=tiles, pack_bytes=pack_bytes)

    @classmethod
    def of_found(cls, about: SliceDescription, tiles: Sequence[SliceTile], found: Found) -> SliceManifest:
        """Return the manifest of a slice. Args: tiles: of it, all. Raises: SliceError: one was not found."""
        blocks: dict[str, list[StoredTile]] = {}
        pack_bytes = {}
        for tile in tiles:
            if tile.key not in found:
                raise SliceError(f"slice {about.slice_id[:12]} lacks a tile of {tile.file}; send it first")
            stored, pack = found[tile.key]
            blocks.setdefault(tile.file, []).append(stored)
            pack_bytes[pack.name] = pack.size_bytes
        return cls.of_tiles(about, {name: tuple(block) for name, block in blocks.items()}, pack_bytes)

    @property
    def share(self) -> RankShare:
        return self.plan.shares[self.rank]

    def text(self) -> str:
        """Return what stands in manifest.json."""
        files = {name: entry.to_json() for name, entry in sorted(self.files.items())}
        where = {"files": files} if self.encodings is None else stored_text(self.tiles, self.pack_bytes)
        body = {**self.to_json(), **where}
        return json.dumps({**body, "body_sha256": _body_digest(body)}, indent=1)


def read_manifest(directory: Path) -> SliceManifest:
    """Read and check a slice directory's manifest and the sizes of its files, or of the packs that have its tiles.

    Where `directory` has no manifest but those of plans in it, and of one only, it is that one.

    Raises: SliceError: there is none; SliceMismatch: another format version;
    SliceCorrupt: not readable, or files are missing or of another size.
    """
    path = _manifest_of(directory)
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise SliceCorrupt(f"{path} is larger than any manifest; slice the model again with --split-bin")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SliceError(f"{directory} holds no slice (no {MANIFEST_NAME}); slice the model with --split-bin") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SliceCorrupt(f"{path} cannot be read ({error}); slice the model again with --split-bin") from error
    manifest = _parse(path, value)
    try:
        layouts = manifest.layouts()
    except InputError as error:
        raise SliceCorrupt(f"{path} makes no sense ({error}); slice the model again with --split-bin") from error
    if manifest.encodings is None:
        _check_files(directory, manifest, layouts)
    else:
        _check_packs(store_of(directory), manifest)
    return manifest


def check_belongs(
    manifest: SliceManifest, directory: Path, *, model_identity: str, plan: Plan, rank: int, dtype: str
) -> None:
    """Raise SliceMismatch, saying what differs, unless the slice is the one asked for."""
    differences = []
    if manifest.model_identity != model_identity:
        differences.append(f"another model ({manifest.model_identity[:12]} instead of {model_identity[:12]})")
    if manifest.plan.digest != plan.digest:
        differences.append(f"plan {_plan_name(manifest.plan)} instead of {_plan_name(plan)}")
    if manifest.rank != rank:
        differences.append(f"rank {manifest.rank} instead of {rank}")
    if manifest.dtype != dtype:
        differences.append(f"{manifest.dtype} weights instead of {dtype}")
    if differences:
        raise SliceMismatch(f"the slice in {directory} is for {', '.join(differences)}; "
                            f"slice again with --split-bin, or keep both with another --save-dir")  # fmt: skip


def _plan_name(plan: Plan) -> str:
    return f"'{plan.strategy}' on {counted(plan.world_size, 'node')}"


def _body_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def _parse(path: Path, value: Any) -> SliceManifest:
    again = "slice the model again with --split-bin"
    if not isinstance(value, dict):
        raise SliceCorrupt(f"{path} is not a manifest; {again}")
    if value.get("format_version") not in FORMAT_VERSIONS:
        raise SliceMismatch(f"{path} has slice format {value.get('format_version')!r}, this program reads "
                            f"{' and '.join(map(str, FORMAT_VERSIONS))}; {again}, or install the shardmesh that made "
                            "it")  # fmt: skip
    body = dict(value)
    if body.pop("body_sha256", None) != _body_digest(body):
        raise SliceCorrupt(f"{path} is damaged (its digest differs); {again}")
    try:
        about = SliceDescription.from_json(body)
        if about.format_version != body["format_version"]:
            raise ValueError(f"format {body['format_version']} for {about.dtype} weights")
        if about.encodings is not None:
            return SliceManifest.of_tiles(about, *stored_of(body, about.layouts()))
        files = {str(name): FileEntry.from_json(entry) for name, entry in body["files"].items()}
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError, InputError) as error:
        raise SliceCorrupt(f"{path} makes no sense ({error}); {again}") from error
    return SliceManifest.of(about, files)


def _manifest_of(directory: Path) -> Path:
    """Return the manifest of a slice directory, or of the one plan in it. Raises: SliceError: there are several."""
    path = directory / MANIFEST_NAME
    if path.exists():
        return path
    plans = sorted(directory.glob(f"*/{MANIFEST_NAME}"))
    if len(plans) > 1:
        names = ", ".join(plan.parent.name for plan in plans)
        raise SliceError(f"{directory} has slices of several plans ({names}); name one, such as {plans[0].parent}")
    return plans[0] if plans else path


def _check_packs(store: Path, manifest: SliceManifest) -> None:
    for name, size_bytes in manifest.pack_bytes.items():
        if (found := _size_of(store / name)) != size_bytes:
            raise _wrong_size(store / name, found, size_bytes)


def _check_files(directory: Path, manifest: SliceManifest, layouts: dict[str, FileLayout]) -> None:
    if set(layouts) != set(manifest.files):
        raise SliceCorrupt(f"{directory / MANIFEST_NAME} does not list the files that its plan needs; "
                           "slice the model again with --split-bin")  # fmt: skip
    for name, layout in layouts.items():
        path, entry = directory / name, manifest.files[name]
        found = _size_of(path)
        if not found == entry.size_bytes == layout.file_bytes or len(entry.tile_sha256) != len(layout.tiles):
            raise _wrong_size(path, found, layout.file_bytes)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        raise SliceCorrupt(f"{path} is missing; slice the model again with --split-bin") from None


def _wrong_size(path: Path, found_bytes: int, wanted_bytes: int) -> SliceCorrupt:
    return SliceCorrupt(
        f"{path} has {found_bytes} bytes where {wanted_bytes} belong; slice the model again with --split-bin"
    )

"""Do faults of the disk and of the files end in an error that names the file, and pass when the fault does?

Covers: common/weights/reader.py through common/weights/tile_source.py, with real files and injected faults.
Does not cover: waiting, closing, counting (test_tile_source.py).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import InternalError, SliceCorrupt, SliceReadError
from common.weights.checksums import SHA256, XXH3, Checksum, xxh3_of
from common.weights.reader import TileRange, read_into
from common.weights.tile_source import ResidentTiles, StreamedTiles
from tests.support.tiles_on_disk import LEAST_BYTES, PAGE, FaultyDisk, content, sweep, use

pytestmark = pytest.mark.usefixtures("reads_leave_nothing")


def test_short_reads_are_continued(tiles: list[TileRange]) -> None:
    """A system call that returns less than asked for is no error."""

    def read_a_little(fd: int, buffer: memoryview, offset: int) -> int:
        return read_into(fd, buffer[:1000], offset)

    with StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=read_a_little) as source:
        sweep(source, tiles)


def test_a_disk_error_names_the_file_and_is_told_at_each_try(tiles: list[TileRange]) -> None:
    """EIO reaches who waits for that tile, once for each read that failed; then the tile comes right."""
    disk = FaultyDisk(tiles[3].offset, failure_count=3)
    with StreamedTiles(tiles[:4], window_bytes=LEAST_BYTES, read_into=disk.read) as source:
        sweep(source, tiles[:3])
        for _ in range(3):
            with pytest.raises(SliceReadError, match=r"first\.bin: reading .* Input/output error \(EIO\)"):
                source.acquire(3)
        assert bytes(source.acquire(3)) == content(tiles[3])
        source.release(3)
        assert source.stats.failed_reads_total == 3
        sweep(source, tiles[:4])


def test_a_failure_does_not_poison_the_next_sweep(tiles: list[TileRange]) -> None:
    """What failed in an abandoned sweep is read again in the next one, and not reported there."""
    disk = FaultyDisk(tiles[3].offset, failure_count=1_000_000)
    with StreamedTiles(tiles[:4], window_bytes=LEAST_BYTES, read_into=disk.read) as source:
        sweep(source, tiles[:3])
        with pytest.raises(SliceReadError):
            source.acquire(3)
        disk.failures_left = 0
        for _ in range(2):
            sweep(source, tiles[:4])


def test_a_resident_tile_that_failed_is_read_again(tiles: list[TileRange]) -> None:
    """Without a window, too, a failure is told and then tried again."""
    disk = FaultyDisk(tiles[0].offset, failure_count=1)
    with ResidentTiles(tiles[:3], read_into=disk.read) as source:
        with pytest.raises(SliceReadError, match="EIO"):
            source.acquire(0)
        sweep(source, tiles[:3])


def test_a_fault_nobody_foresaw_reaches_who_waits(tiles: list[TileRange]) -> None:
    """A bug in reading is an InternalError for the caller, not a reader thread that is gone."""

    def fail(fd: int, buffer: memoryview, offset: int) -> int:
        raise ValueError("no such thing")

    with StreamedTiles(tiles, window_bytes=LEAST_BYTES, read_into=fail) as source:
        for _ in range(3):
            with pytest.raises(InternalError, match=r"first\.bin.*no such thing"):
                source.acquire(0)


def test_a_file_cut_short_is_corrupt(tiles: list[TileRange]) -> None:
    """At the start, and when it happens later."""
    whole = tiles[6].path.read_bytes()
    with StreamedTiles(tiles, window_bytes=LEAST_BYTES) as source:
        sweep(source, tiles)
        os.truncate(tiles[6].path, len(whole) - 1)
        with pytest.raises(SliceCorrupt, match=r"second\.bin: cut short"):
            use(source, len(tiles), 3)  # more than once, for the tile may have been read before the cut
        with pytest.raises(SliceCorrupt, match=r"second\.bin: cut short"):
            StreamedTiles(tiles, window_bytes=LEAST_BYTES)
        tiles[6].path.write_bytes(whole)
        sweep(source, tiles)


def test_files_that_are_not_plain_files_are_refused(tiles: list[TileRange], tmp_path: Path) -> None:
    """A missing file, a link, a directory and a pipe are errors that name them; none blocks or leaks."""
    (tmp_path / "link.bin").symlink_to(tiles[0].path)
    (tmp_path / "directory.bin").mkdir()
    os.mkfifo(tmp_path / "pipe.bin")
    for name in ("missing.bin", "link.bin", "directory.bin", "pipe.bin"):
        bad = TileRange(path=tmp_path / name, offset=0, byte_count=PAGE)
        with pytest.raises(SliceReadError, match=name):
            StreamedTiles([*tiles, bad], window_bytes=1 << 20)


def test_a_tile_that_is_not_whole_pages_is_corrupt(tmp_path: Path) -> None:
    """Offsets and sizes come from a manifest and are checked at birth."""
    for offset, byte_count in ((1, PAGE), (-PAGE, PAGE), (0, PAGE - 1), (0, 0), (0, -PAGE)):
        with pytest.raises(SliceCorrupt, match="whole pages"):
            TileRange(path=tmp_path / "x.bin", offset=offset, byte_count=byte_count)


def signed(tiles: list[TileRange], kind: str) -> list[TileRange]:
    """Return tiles with their checksums."""
    values = [xxh3_of(content(tile)) if kind == XXH3 else hashlib.sha256(content(tile)).hexdigest() for tile in tiles]
    return [replace(tile, checksum=Checksum(kind=kind, value=value)) for tile, value in zip(tiles, values, strict=True)]


@pytest.mark.parametrize("kind", [XXH3, SHA256])
def test_a_flipped_byte_is_found_at_the_first_read(tiles: list[TileRange], kind: str) -> None:
    """A tile whose checksum differs is never handed out, however often it is asked for; a whole one is."""
    checked = signed(tiles, kind)
    with StreamedTiles(checked, window_bytes=LEAST_BYTES) as source:
        sweep(source, checked)
        spent = source.stats.checksum_nanoseconds
        assert spent > 0
        sweep(source, checked)
        assert source.stats.checksum_nanoseconds == spent
    with open(tiles[1].path, "r+b") as file:
        file.seek(tiles[1].offset + 4321)
        flipped = file.read(1)[0] ^ 1
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([flipped]))
    with StreamedTiles(checked, window_bytes=LEAST_BYTES) as source:
        sweep(source, checked[:1])
        for _ in range(3):
            with pytest.raises(SliceCorrupt, match=rf"first\.bin is damaged \(the {kind} of"):
                source.acquire(1)
        sweep(source, checked[:1])


@pytest.mark.parametrize("kind", [XXH3, SHA256])
def test_a_checksum_that_is_wrong_is_damage_too(tiles: list[TileRange], kind: str) -> None:
    """Who is right, the bytes or what is said of them, cannot be known."""
    checked = signed(tiles, kind)
    right = checked[2].checksum
    assert right is not None
    checked[2] = replace(checked[2], checksum=replace(right, value=right.value[::-1]))
    with StreamedTiles(checked, window_bytes=LEAST_BYTES) as source:
        sweep(source, checked[:2])
        with pytest.raises(SliceCorrupt, match="is damaged"):
            source.acquire(2)

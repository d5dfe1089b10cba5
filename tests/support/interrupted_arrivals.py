"""A program that kills a node at chosen moments while a slice in packs arrives, and tells what its next start does.

    python -m tests.support.interrupted_arrivals MODEL_DIRECTORY WORK_DIRECTORY KILL_COUNT SEED

Prints JSON. On the node's disk lie a half of the model and a quarter, out of the half's packs; three quarters arrive
and are made whole, the half is removed while its tiles stay, then the three quarters with all that the quarter does not
need, so that its tiles move. Each time a forked child does that which ends by SIGKILL right before its n-th touch of
the file system. The store that this process opens then must take the rest, and have all slices' tiles as they were cut.
Does not cover: messages (tests/contract/test_packed_shipping.py), power cuts.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.weights import packs
from common.weights.manifest import MANIFEST_NAME
from common.weights.packs import pack_layout, slice_tiles
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import BLOCK_KINDS, block_file_name
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.slicing.tiles import BlockTiles, TilePacker
from shardnode.slices.slice_store import SliceStore
from tests.support.interrupted_splits import watch_touches
from tests.support.packed_models import contents_of, packed_description

CHUNK_BYTES = 100_000
PACK_BYTES = 300_000
LAST_TOUCHES = 80
"""Making the slice whole, removing, moving tiles: half of all kills."""


class Cut:
    """A slice, and what its tiles are."""

    def __init__(self, checkpoint: Checkpoint, description: SliceDescription) -> None:
        self.description, self.tiles = description, slice_tiles(description)
        self.text = json.dumps(description.to_json()).encode()
        blocks = {
            block_file_name(layer, kind): BlockTiles(checkpoint, layer, kind, description.encodings)
            for layer in range(checkpoint.spec.layer_count)
            for kind in BLOCK_KINDS
        }
        packer = TilePacker()
        self.data = [
            bytes(packer.pack(tile.layout, blocks[tile.file].tile(tile.layout))) for tile in self.tiles
        ]  # fmt: skip
        self.right: dict[str, list[str]] = {}
        for tile, data in zip(self.tiles, self.data, strict=True):
            self.right.setdefault(tile.file, []).append(hashlib.sha256(data).hexdigest())

    def arrive(self, store: SliceStore) -> None:
        """Have a store take what it lacks, as a coordinator sends it, and make it whole."""
        offer = store.offer(self.text, verify=False)
        for pack in () if offer.is_whole else offer.packs:
            tiles = [self.tiles[number] for number in pack.tiles]
            data = pack_layout(tiles).header + b"".join(self.data[number] for number in pack.tiles)
            file = store.receive(offer.slice_id, pack.name, pack.byte_count)
            for start in range(pack.byte_count, len(data), CHUNK_BYTES):
                file.write(data[start : start + CHUNK_BYTES])
            digests = [hashlib.sha256(self.data[number]).hexdigest() for number in pack.tiles]
            file.finish(hashlib.sha256(data).hexdigest(), digests)
            file.close()
        if not offer.is_whole:
            store.publish(offer.slice_id)


class Setting:
    """A node's directory with one slice, and another one that arrives."""

    def __init__(self, model: Path, work: Path) -> None:
        checkpoint = open_checkpoint(model)
        self.data, self._made = work / "data", work / "made"
        half, more, quarter = (
            Cut(checkpoint, packed_description(checkpoint, world_size=world_size, strategy=strategy, rank=0))
            for world_size, strategy in ((2, "uniform"), (2, "ratio:3,1"), (4, "uniform"))
        )
        self.half, self.more, self.cuts = half, more, (half, quarter, more)
        checkpoint.close()
        for cut in (half, quarter):
            cut.arrive(SliceStore(self._made))

    def prepare(self) -> None:
        """Put there what each time begins with."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self._made, self.data)

    def run(self) -> None:
        """Do all that may be interrupted."""
        store = SliceStore(self.data)
        self.more.arrive(store)
        store.remove(self.half.description.slice_id, keep_tiles=True)
        store.remove(self.more.description.slice_id)

    def is_right(self) -> bool:
        """Start again, have the rest sent, and compare all slices with what was cut; nothing else may be left."""
        store = SliceStore(self.data)
        places = [self.data / "slices" / cut.description.slice_id for cut in self.cuts]
        for cut, place in zip(self.cuts, places, strict=True):
            if (place / MANIFEST_NAME).exists() and contents_of(place) != cut.right:
                return False
        if not (places[1] / MANIFEST_NAME).exists():  # the quarter, which nobody has removed
            return False
        for cut in self.cuts:
            cut.arrive(store)
        return [contents_of(place) for place in places] == [cut.right for cut in self.cuts] and not list(self._left())

    def _left(self) -> Iterator[Path]:
        slices = self.data / "slices"
        yield from (slices / "arriving").iterdir()
        yield from (path for path in slices.rglob("*") if path.name.startswith(".") or path.name.endswith(".part"))
        yield from (path for path in (slices / "store").glob("*.json") if not path.with_suffix(".safetensors").exists())


def main(arguments: list[str]) -> int:
    """Kill so many times and print what came of it."""
    model, work, kill_count, seed = arguments
    packs.packed.__defaults__ = (PACK_BYTES,)
    setting, source = Setting(Path(model), Path(work)), random.Random(int(seed))
    touches = _touches_of(setting)
    last = list(range(max(1, touches - LAST_TOUCHES), touches + 1))
    moments = source.sample(last, min(len(last), int(kill_count) // 2))
    moments += source.sample(range(1, touches + 1), int(kill_count) - len(moments))
    outcomes = []
    for moment in sorted(moments):
        setting.prepare()
        outcomes.append({"moment": moment, "signal": _killed(setting, moment), "right": setting.is_right()})
    print(json.dumps({"touches": touches, "outcomes": outcomes}))
    return 0


def _touches_of(setting: Setting) -> int:
    """Return how often an undisturbed run touches the file system."""
    setting.prepare()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        counter, really_write = [0], os.write
        watch_touches(lambda: counter.__setitem__(0, counter[0] + 1))
        setting.run()
        really_write(writing, str(counter[0]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    count = int(os.read(reading, 20))
    os.close(reading)
    return count


def _killed(setting: Setting, moment: int) -> int:
    """Run in a child that is killed at its `moment`-th touch; return the signal that ended it, 0 if none did."""
    child = os.fork()
    if child == 0:
        left: list[Any] = [moment]

        def touch() -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        watch_touches(touch)
        setting.run()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

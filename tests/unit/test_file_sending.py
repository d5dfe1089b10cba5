"""Does who sends a file say that he is there while he has nothing to send, and change none of its bytes by it?

Covers: coordinator/shipping/file_sending.py, coordinator/shipping/block_feed.py. Does not cover: links and nodes
(tests/contract/test_slice_shipping.py), what a node does with who says nothing (test_call_limits.py).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.weights.slice_format import FileLayout, block_file_name
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.shipping.block_feed import BlockFeed
from coordinator.shipping.file_sending import SIGN_OF_LIFE, FileSending
from coordinator.slicing.tiles import BlockTiles, TileTensors
from protos.shardmesh.v1 import slices_pb2
from tests.support.sliced_models import SlicedModel, slice_model

LAYER, KIND = 0, "ffn"
NAME = block_file_name(LAYER, KIND)
LIMIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a tiny model and its slice."""
    return slice_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def checkpoint(sliced: SlicedModel) -> Iterator[Checkpoint]:
    """Return the model that the slice was cut from."""
    with closing(open_checkpoint(sliced.directory)) as opened:
        yield opened


def layout_of(sliced: SlicedModel) -> FileLayout:
    """Return what the file consists of."""
    return sliced.manifest(0).layouts()[NAME]


def tiles_of(sliced: SlicedModel, checkpoint: Checkpoint, *, waits: bool) -> Iterator[TileTensors | None]:
    """Yield the file's tiles, each waited for first or not."""
    block = BlockTiles(checkpoint, LAYER, KIND)
    for tile in layout_of(sliced).tiles:
        if waits:
            yield None
        yield block.tile(tile)


def sent(
    sliced: SlicedModel, tiles: Iterator[TileTensors | None], first_byte: int = 0
) -> list[slices_pb2.SendFileRequest]:  # fmt: skip
    """Return the messages of the file."""
    start = slices_pb2.FileStart(slice_id="s", name=NAME, first_byte=first_byte)
    return list(FileSending(start, layout_of(sliced), tiles, lambda byte_count: True))


def test_signs_of_life_are_sent_while_a_tile_is_waited_for(sliced: SlicedModel, checkpoint: Checkpoint) -> None:
    """The bytes and digests are those of a file that nobody has waited for."""
    messages = sent(sliced, tiles_of(sliced, checkpoint, waits=True))
    assert messages.count(SIGN_OF_LIFE) == len(layout_of(sliced).tiles)
    plain = [message for message in messages if message != SIGN_OF_LIFE]
    assert plain == sent(sliced, tiles_of(sliced, checkpoint, waits=False))
    data = (sliced.slice_directory(0) / NAME).read_bytes()
    assert b"".join(message.chunk for message in messages) == data
    assert messages[-1].end.sha256 == hashlib.sha256(data).hexdigest()


def test_what_is_there_already_is_cut_again_and_each_tile_of_it_said(
    sliced: SlicedModel, checkpoint: Checkpoint
) -> None:  # fmt: skip
    """So a node hears something while gigabytes are cut of which it lacks the last."""
    layout = layout_of(sliced)
    messages = sent(sliced, tiles_of(sliced, checkpoint, waits=False), first_byte=layout.file_bytes)
    assert messages[1:-1] == [SIGN_OF_LIFE] * (1 + len(layout.tiles))


def test_a_rank_that_is_far_ahead_waits_as_long_as_it_likes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """And is told whether the slowest one has come after."""
    feed = BlockFeed(checkpoint)
    feed.take(0, 0, "attention")
    assert not feed.is_ready(1, 1, "attention", 0.0)
    moved = threading.Thread(target=feed.take, args=(0, 0, "ffn"))
    moved.start()
    assert feed.is_ready(1, 1, "attention", LIMIT_SECONDS)
    moved.join()
    feed.close()

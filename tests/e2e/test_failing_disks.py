"""Does a disk that is slow or fails, or a file cut short under a running node, end in one line that names both?

Covers: faults injected into the nodes' reads, seen through `coordinator-cli generate`; that the node serves on when
the fault has passed. Does not cover: which reads fail how (tests/unit/test_reader.py), damage before the start
(test_wrong_slices.py).
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from common.errors import EXIT_SLICE
from common.weights.manifest import read_manifest
from common.weights.open_tiles import sweep_tiles
from common.weights.pinning import least_weight_bytes
from common.weights.reader import ReadInto, read_into
from common.weights.weight_memory import WeightMemory
from shardnode.config import NodeConfig
from shardnode.listeners.service import NodeServer
from shardnode.slices.serving import Serving
from shardnode.work.slice_at_work import ShardNode
from tests.e2e.conftest import RunHere
from tests.support.tiles_on_disk import HangingDisk

READ_TIMEOUT_SECONDS = 0.2
ASK = ["--prompt", "hello", "--length", "8", "--temperature", "0", "--ignore-eos"]


class SometimesFailing:
    """Reads; while `fails`, one file's bytes end in EIO."""

    def __init__(self) -> None:
        self.fails = False

    def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_into(fd, buffer, offset)


@contextmanager
def nodes_with(model: Path, disk: ReadInto) -> Iterator[str]:
    """Run both nodes of a model in this process, the second one over `disk`; yield what --nodes takes.

    Their windows hold two tiles, so that every sweep reads again.
    """
    with ExitStack() as closing:
        sockets = closing.enter_context(tempfile.TemporaryDirectory(prefix="shardmesh-test-"))
        addresses = []
        for rank, reads in enumerate((read_into, disk)):
            directory = model / "split" / f"node{rank}"
            sizes = [tile.byte_count for tile in sweep_tiles(directory, read_manifest(directory))]
            config = NodeConfig(
                slice_directory=directory, listen=f"unix:{sockets}/node{rank}.sock", thread_count=1,
                kv_budget_bytes=1 << 20, weights=WeightMemory(
                    window_bytes=least_weight_bytes(sizes), read_timeout_seconds=READ_TIMEOUT_SECONDS, page_cache="use"
                ),
            )  # fmt: skip
            node = ShardNode(config, read_into=reads)
            closing.callback(node.close)
            server = NodeServer(config, Serving(config, opened=node))
            server.start()
            closing.callback(server.stop, 0)
            addresses.append(server.address)
        yield ",".join(addresses)


def check_fails_and_recovers(here: RunHere, model: Path, option: str, line: str, mend: Callable[[], object]) -> None:
    """Ask while the fault lasts, mend it, and ask again."""
    ask = ["generate", "--model", str(model), *ASK, "--nodes", option]
    failed = here("coordinator-cli", *ask).error_line("coordinator-cli", EXIT_SLICE)
    assert re.search(line, failed), failed
    mend()
    assert here("coordinator-cli", *ask).code == 0


def test_a_disk_that_fails_is_named_with_its_node(here: RunHere, sliced: Path) -> None:
    """EIO under node 1: one line with the node, the file, the system's own word; then the node serves on."""
    disk = SometimesFailing()
    with nodes_with(sliced, disk.read) as option:
        assert here("coordinator-cli", "generate", "--model", str(sliced), *ASK, "--nodes", option).code == 0
        disk.fails = True
        check_fails_and_recovers(
            here, sliced, option, r"node 1.*split/node1/layer\d{4}\.\w+\.safetensors: reading .* \(EIO\)",
            lambda: setattr(disk, "fails", False),
        )  # fmt: skip


def test_a_disk_that_does_not_answer_is_named_within_its_limit(here: RunHere, sliced: Path) -> None:
    """A read that hangs under node 1 ends the request after --read-timeout-seconds, with node and file."""
    disk = HangingDisk()
    with nodes_with(sliced, disk.read) as option:
        try:
            check_fails_and_recovers(
                here, sliced, option, r"node 1.*split/node1/layer0000\.attention\.safetensors: no answer from the disk "
                r"within 0\.2 s", disk.answer.set,
            )  # fmt: skip
        finally:
            disk.answer.set()


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_a_file_cut_short_under_a_running_node_is_named(
    here: RunHere, sliced: Path, sliced_once: Path, kind: str
) -> None:
    """The node's own copy loses its last page between two requests; put back, the node serves on."""
    path = sliced / "split" / "node1" / f"layer0001.{kind}.safetensors"
    whole = path.read_bytes()
    with nodes_with(sliced, read_into) as option:
        assert here("coordinator-cli", "generate", "--model", str(sliced_once), *ASK, "--nodes", option).code == 0
        os.truncate(path, len(whole) - 4096)
        check_fails_and_recovers(
            here, sliced_once, option, rf"node 1.*layer0001\.{kind}\.safetensors: cut short",
            lambda: path.write_bytes(whole),
        )  # fmt: skip

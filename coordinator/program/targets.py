"""Where does Prometheus find the metrics pages of a mesh's nodes?

    targets = ScrapeTargets("home", Path("/var/cache/shardmesh-coordinator/targets.json"), mesh.nodes)
    targets.begin()           # raises what a person did wrong
    targets.update(nodes)     # whenever somebody may have come, gone or moved

Covers: a file for its file discovery, written anew when it would say something else; the same for HTTP discovery.
Does not cover: where nodes say their pages are (membership/metrics_url.py), the coordinator's own page, which the
scrape configuration names (deploy/prometheus/prometheus.yml).
Source: prometheus.io/docs, file_sd_config and http_sd_config: a list of {targets, labels}.
Threads: the watch's over nodes writes (node_watch.py), the metrics page's reads.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.errors import InputError
from common.machine.durable_files import is_full, replace_readable
from common.program.logs import entry
from protos.shardmesh.v1 import mesh_pb2

DIRECTORY, FILE = "prometheus", "targets.json"
PAGE, CONTENT_TYPE = "/sd", "application/json"

log = logging.getLogger(__name__)


def default_file(state_directory: Path) -> Path:
    """Return where the list lies unless it is said: in a service's cache, which others may read, else beside the state.

    Only the service's user may enter its state directory.
    """
    if cache := os.environ.get("CACHE_DIRECTORY"):  # systemd's
        return Path(cache.split(":")[0], FILE)
    return state_directory / DIRECTORY / FILE


def target_groups(mesh_name: str, nodes: Sequence[mesh_pb2.Node]) -> list[dict[str, Any]]:
    """Return one group for each node that exports metrics, also while it is silent: only so Prometheus sees it down."""
    groups = []
    for node in sorted(nodes, key=lambda node: node.name):
        if node.metrics:
            page = urlsplit(node.metrics)
            labels = {"mesh": mesh_name, "node": node.name, "__scheme__": page.scheme}
            groups.append({"targets": [page.netloc], "labels": labels})
    return groups


class ScrapeTargets:
    """What Prometheus is told. Nothing to close: the file stays, so that nodes are watched while nobody writes it."""

    def __init__(self, mesh_name: str, path: Path, nodes: Callable[[], Sequence[mesh_pb2.Node]]) -> None:
        """Args: nodes: what the mesh knows of its members now."""
        self._mesh_name, self._path, self._nodes = mesh_name, path, nodes
        self._trouble = ""
        self._told_of: list[tuple[str, str]] = []
        self._written: tuple[int, ...] | None = None
        """What the file system said of the file when it was last found to say what `_told_of` does."""

    def begin(self) -> None:
        """Write the file. Raises: InputError: it cannot be written there, and more room would not help."""
        try:
            if not self._path.parent.exists():
                self._path.parent.mkdir()
                self._path.parent.chmod(0o755)  # whatever the umask: Prometheus is another user
            self._write(self._nodes())
        except OSError as error:
            if not is_full(error):
                raise InputError(f"cannot write {self._path}: {error.strerror}; choose another --discovery-file, in a "
                                 "directory that the coordinator may write to and Prometheus may read"
                                 ) from error  # fmt: skip
            self._tell(error)

    def update(self, nodes: Sequence[mesh_pb2.Node]) -> None:
        """Write the file if it would say something else than it does; what hinders that is logged once."""
        pages = [(node.name, node.metrics) for node in nodes]
        try:
            if self._written is None or pages != self._told_of or self._standing() != self._written:
                self._write(nodes)
                self._told_of, self._written = pages, self._standing()
        except OSError as error:
            self._written = None
            self._tell(error)
        else:
            self._trouble = ""

    def page(self) -> tuple[str, bytes]:
        """Return what HTTP discovery asks for: content type and bytes."""
        return CONTENT_TYPE, self._content(self._nodes())

    def _content(self, nodes: Sequence[mesh_pb2.Node]) -> bytes:
        # A line each: with an indent json is ten times as slow, and this is done once a second.
        groups = ",\n".join(json.dumps(group) for group in target_groups(self._mesh_name, nodes))
        return f"[\n{groups}\n]\n".encode()

    def _standing(self) -> tuple[int, ...] | None:
        """Return what changes when anybody writes the file or takes it away: each second only that is asked for."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _write(self, nodes: Sequence[mesh_pb2.Node]) -> None:
        content = self._content(nodes)
        try:
            is_so = self._path.read_bytes() == content
        except FileNotFoundError:
            is_so = False
        if not is_so:
            replace_readable(self._path, content)

    def _tell(self, error: OSError) -> None:
        trouble = error.strerror or str(error)
        if trouble != self._trouble:
            log.warning("%s", entry("Prometheus is not told where nodes are", path=self._path, error=trouble))
        self._trouble = trouble

"""What does an observer get? Three files, by the names that a scrape job has for them.

Covers: asking for a certificate, writing it with its key where only its user reads. Does not cover: who may
(observers.py), what it opens (common/trust/metrics_door.py).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.machine.durable_files import replace_private
from common.trust.certificates import METRICS_NAME, check_name
from common.trust.identity import not_written
from common.trust.signing import keyed_request
from coordinator.membership.owner_client import OwnerClient


@dataclass(frozen=True, kw_only=True)
class ObserverFiles:
    """An observer's files in a directory of its own."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "authority.pem"

    @property
    def certificate(self) -> Path:
        return self.directory / "observer.pem"

    @property
    def key(self) -> Path:
        return self.directory / "observer.key"

    def tls_config(self) -> list[str]:
        """Return the lines below `tls_config:` of a Prometheus scrape job that use them."""
        values = {
            "ca_file": str(self.authority), "cert_file": str(self.certificate), "key_file": str(self.key),
            "server_name": METRICS_NAME,
        }  # fmt: skip
        # A JSON string is a YAML string, whatever is in it.
        return [f"{key}: {json.dumps(value)}" for key, value in values.items()]


def invite_observer(coordinator: OwnerClient, name: str, valid_days: int, directory: Path) -> ObserverFiles:
    """Let an observer in and write what it needs; the key is made here and shown to nobody.

    Raises: InputError: name, days or directory; DiskFull; what the coordinator answers.
    """
    check_name(name)
    files = ObserverFiles(directory=directory.absolute())
    try:
        files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(directory, error) from error
    if not os.access(directory, os.W_OK | os.X_OK):  # before a certificate is made that would take another one's place
        raise InputError(f"cannot write {directory}: choose another --out, or its owner")
    asked = keyed_request()
    made = coordinator.invite_observer(name, asked.request, valid_days)
    try:
        # The key first: who reads meanwhile finds a pair that does not match for a moment, and reads again.
        for path, content in (
            (files.key, asked.key),
            (files.certificate, made.certificate),
            (files.authority, made.authority),
        ):
            replace_private(path, content)
    except OSError as error:
        raise not_written(directory, error) from error
    return files

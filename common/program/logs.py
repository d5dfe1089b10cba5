"""How programs log: one line per event on stderr, and nothing else there from libraries."""

from __future__ import annotations

import logging

from common.errors import InputError

LEVELS = ("debug", "info", "warning", "error")


def configure_logs(level: str) -> None:
    """Send records of `level` and above to stderr. Call once.

    Raises: InputError: no such level.
    """
    if level not in LEVELS:
        raise InputError(f"--log-level is '{level}'; use {', '.join(LEVELS)}")
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

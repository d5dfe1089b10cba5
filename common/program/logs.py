"""How programs log: one line per event on stderr, and nothing else there from libraries."""

from __future__ import annotations

import logging

from common.errors import InputError
from common.wording import plain

LEVELS = ("debug", "info", "warning", "error")


class _OneLine(logging.Formatter):
    """A peer's words in an event cannot make another one of it; a traceback, which is ours, keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        return plain(super().formatMessage(record))


def configure_logs(level: str) -> None:
    """Send records of `level` and above to stderr. Call once.

    Raises: InputError: no such level.
    """
    if level not in LEVELS:
        raise InputError(f"--log-level is '{level}'; use {', '.join(LEVELS)}")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])

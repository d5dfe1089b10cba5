"""How programs log: one line per event on stderr, and nothing else there from libraries.

log.info("%s", entry("node lost", node="kitchen", silent_seconds=3.6))     # node lost node=kitchen silent_seconds=3.6
"""

from __future__ import annotations

import json
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


def entry(event: str, **about: object) -> str:
    """Return one line that people read and programs can take apart: what happened, then key=value; None is left out.

    Text with blanks or marks in it is quoted as JSON has it, so that no name can look like an entry of its own.
    """
    return " ".join([event, *(f"{key}={_value(value)}" for key, value in about.items() if value is not None)])


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    is_plain = text != "" and all(letter.isalnum() or letter in "_.:/@+-,%[]" for letter in text)
    return text if is_plain else json.dumps(text)

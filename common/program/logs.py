"""How programs log: one line per event on stderr, as text or as JSON, and nothing else there from libraries.

log.info("%s", entry("node lost", node="kitchen", silent_seconds=3.6))

    2026-11-30 02:15:04,171 WARNING coordinator.program.node_watch: node lost node=kitchen silent_seconds=3.6
    {"time": "2026-11-30T02:15:04.171Z", "level": "warning", "logger": "..", "event": "node lost", "node": "kitchen"}

Covers: entries, both forms of a line. Does not cover: options (log_options.py), which entries there are; of a prompt or
an answer there is no word in any.
"""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import datetime, timezone

from common.errors import InputError
from common.wording import plain

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
OWN_KEYS = ("time", "level", "logger", "event", "traceback")
"""Of a line of JSON; a value of an entry that is called so gets a dash behind it."""
_is_plain = re.compile(r"[\w.:/@+\-,%\[\]]+").fullmatch


class Entry(str):
    """One line of text that still knows what it was made of."""

    event: str
    about: dict[str, bool | int | float | str]


class _OneLine(logging.Formatter):
    """A peer's words in an event cannot make another one of it; a traceback, which is ours, keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        return plain(super().formatMessage(record))


class _JsonLines(logging.Formatter):
    """One object a line, in ASCII, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "time": at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z", "level": record.levelname.lower(),
            "logger": record.name,
        }  # fmt: skip
        found = record.args[0] if isinstance(record.args, tuple) and len(record.args) == 1 else None
        if isinstance(found, Entry) and record.msg == "%s":
            line["event"] = found.event
            line |= {f"{key}_" if key in OWN_KEYS else key: _json_value(value) for key, value in found.about.items()}
        else:
            line["event"] = plain(record.getMessage())
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logs(level: str, log_format: str = "text") -> None:
    """Send records of `level` and above to stderr. Call once.

    Raises: InputError: no such level, no such format.
    """
    if level not in LEVELS:
        raise InputError(f"--log-level is '{level}'; use {', '.join(LEVELS)}")
    if log_format not in FORMATS:
        raise InputError(f"--log-format is '{log_format}'; use {', '.join(FORMATS)}")
    # Our lines say neither which line of code nor which thread wrote them, so nobody finds that out for each of them;
    # all four are the library's documented ways, under "Optimization".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if log_format == "json" else _OneLine(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def log_format() -> str:
    """Return the form that was asked for, for a process that writes into the same log."""
    is_json = any(isinstance(handler.formatter, _JsonLines) for handler in logging.getLogger().handlers)
    return "json" if is_json else "text"


def entry(event: str, **about: object) -> Entry:
    """Return one line that people read and programs can take apart: what happened, then key=value; None is left out.

    Text with blanks or marks in it is quoted as JSON has it, so that no name can look like an entry of its own.
    """
    known: dict[str, bool | int | float | str] = {}
    line = event
    for key, value in about.items():
        if value is None:
            continue
        if isinstance(value, float):
            known[key], text = value, f"{value:.3g}"
        elif isinstance(value, int):  # a bool too
            known[key], text = value, str(value)
        else:  # as text: who keeps a record is not to keep an error's frames, and what they hold, alive
            known[key] = text = str(value)
            if not _is_plain(text):
                text = json.dumps(text)
        line += f" {key}={text}"
    made = Entry(line)
    made.event, made.about = event, known
    return made


def _json_value(value: bool | int | float | str) -> bool | int | float | str | None:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value

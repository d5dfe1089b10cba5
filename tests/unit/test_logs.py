"""Is an entry of a log one line that a person reads and a program takes apart, whatever is in it?

Covers: both forms, text and JSON. Does not cover: which entries there are (tests/contract/test_coordinator_log.py).
"""

from __future__ import annotations

import io
import json
import logging
import shlex
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from common.errors import InputError
from common.program.logs import configure_logs, entry, log_format

log = logging.getLogger(__name__)


def test_an_entry_says_what_happened_and_then_its_values() -> None:
    """In their order; what is not known is left out."""
    found = entry("node lost", node="kitchen", address="10.0.0.7:50051", silent_seconds=3.6123, rank=0, model=None)
    assert found == "node lost node=kitchen address=10.0.0.7:50051 silent_seconds=3.61 rank=0"


@pytest.mark.parametrize(
    "value",
    ["", "the mesh's owner", 'a "b"', "a=b", "one\ntwo", "\x1b[2J", "\u202e", "node lost node=attic", "back\\slash"],
)
def test_no_value_looks_like_an_entry_of_its_own(value: str) -> None:
    """It is quoted, on one line and without control characters, and a program reads it as it was."""
    found = entry("event", name=value, after=1)
    assert found.isprintable()
    quoted = found.removeprefix("event name=").removesuffix(" after=1")
    assert json.loads(quoted) == value
    assert len(shlex.split(found.encode().decode("ascii"))) >= 2


@pytest.fixture
def written() -> Iterator[Callable[[], list[Any]]]:
    """Configure logs as JSON lines, and return what reads them; as it was before, afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    with mock.patch.object(root, "handlers", []), mock.patch("sys.stderr", stream):
        level = root.level
        configure_logs("debug", "json")
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
        root.setLevel(level)


def test_an_entry_is_an_object_with_its_values(written: Callable[[], list[Any]]) -> None:
    """Numbers as numbers; a name of the line's own keys is kept apart."""
    assert log_format() == "json"
    log.warning("%s", entry("node lost", node="kitchen", silent_seconds=3.6123, rank=0, model=None, level="x\ny"))
    (line,) = written()
    assert (line.pop("time")[-1], line) == ("Z", {
        "level": "warning", "logger": __name__, "event": "node lost", "node": "kitchen", "silent_seconds": 3.6123,
        "rank": 0, "level_": "x\ny",
    })  # fmt: skip


def test_whatever_is_logged_is_one_object_a_line(written: Callable[[], list[Any]]) -> None:
    """What libraries say, and tracebacks with all their lines."""
    log.info("one\n%s", "two")
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("%s", entry("internal error", error_id="4f"))
    first, second = written()
    assert first["event"] == "one two"
    assert (second["event"], second["error_id"]) == ("internal error", "4f")
    assert second["traceback"].endswith("ValueError: a\nb")


def test_a_form_that_there_is_not_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(InputError, match="--log-format is 'xml'; use text, json"):
        configure_logs("info", "xml")

"""What do the coordinator program and the process that does a load say to each other?

    program -> process    one line, the order; later GO, once the plan is written down; the end of the pipe: end at once
    process -> program    a line for each piece of news; the last one is Brought or Failed

Covers: the lines, JSON both ways. Does not cover: who sends them (load_process.py, program/load_child.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from common.errors import InternalError, ShardmeshError, all_error_classes
from common.wire.rpc import status_of
from coordinator.ranks.transports.carriers import AUTO

GO = b"go\n"


@dataclass(frozen=True, kw_only=True)
class LoadOrder:
    """What is to be loaded, and how."""

    path: str
    """Absolute; bytes that are no text are escaped as in os.fsdecode."""
    name: str
    node_names: list[str]
    """By rank; empty: all that are alive."""
    split_strategy: str
    """Empty: as it was loaded before, else measured."""
    weights_dtype: str
    """Empty: the model's own."""
    verify: bool
    state_directory: str
    rounds: str = AUTO
    """What carries rounds, of ROUNDS; links are measured over it."""
    log_format: str = "text"
    """Of the lines that it writes into the program's log."""

    def line(self) -> bytes:
        """Return it as it travels."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> LoadOrder:
        """Return what `line` has made."""
        return cls(**json.loads(line))


@dataclass(frozen=True, kw_only=True)
class Told:
    """A sentence for a person."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Who will hold what; the process waits for GO before it changes anything."""

    node_names: list[str]
    description: dict[str, Any]
    """Of the coordinator's own slice."""
    prediction: dict[str, Any] | None
    """None where nothing was measured for the plan."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one slice is."""

    node: str
    """Empty: the coordinator's own."""
    arrived_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Brought:
    """All files are where they belong; nobody uses them yet."""

    sent_bytes: list[int]
    """By rank."""
    total_bytes: list[int]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """It came to no good end."""

    reason: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Return an error as it travels; what is not ours is logged here and sent without its text."""
        status = status_of(error)
        return cls(reason=status.reason, message=status.message)

    def error(self) -> ShardmeshError:
        """Return it as it was raised."""
        known = {one.reason: one for one in all_error_classes()}
        return known.get(self.reason, InternalError)(self.message)


News = Told | Planned | Progress | Brought | Failed
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Told, Planned, Progress, Brought, Failed)}


def line_of(news: News) -> bytes:
    """Return a piece of news as it travels."""
    return json.dumps({"kind": type(news).__name__, **asdict(news)}).encode() + b"\n"


def news_of(line: bytes) -> News:
    """Return what `line_of` has made. Raises: InternalError: it is something else."""
    try:
        value: dict[str, Any] = json.loads(line)
        news: News = _KINDS[value.pop("kind")](**value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InternalError("the process that loads a model has said what nobody understands") from error
    return news

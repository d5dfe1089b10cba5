"""Loses answers, refuses writes and kills programs at a chosen step of joining or renewing, in this process.

    with Faults(node=directory, coordinator=state) as faults:
        faults.begin(Fault(side="node", kind="killed", at=3))
        ...                                # the third touch of the node's files is its end
        faults.begin(None)                 # the next attempt goes undisturbed

A step of a side is a change of its files (make, sync, rename, remove) or, of "call", an RPC of the node. Who is killed
changes no file any more, not even to clean up; its program is started again by whoever wrote the test.
Does not cover: what has to hold afterwards (tests/contract/test_trust_faults.py); real kills (killed_program.py).
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import grpc

from common.trust import tls

Side = Literal["node", "coordinator", "call"]
Kind = Literal["refused", "full", "killed", "lost before", "lost after"]
FILE_KINDS: tuple[Kind, ...] = ("refused", "full", "killed")
CALL_KINDS: tuple[Kind, ...] = ("lost before", "lost after")


class KilledHere(Exception):
    """The program whose file was to be changed is dead."""


class LostAnswer(grpc.RpcError):
    """What a caller sees of a connection that broke."""

    def code(self) -> grpc.StatusCode:
        """See grpc.Call."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """See grpc.Call."""
        return "connection reset"

    def trailing_metadata(self) -> tuple[()]:
        """See grpc.Call."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong. `refused`: one write; `full`: it and all that come after it."""

    side: Side
    kind: Kind
    at: int
    """The how-manieth step of that side, from 1."""


class Faults(grpc.UnaryUnaryClientInterceptor):
    """Faults of one node and one coordinator. Use as a context manager."""

    def __init__(self, **directories: Path) -> None:
        """Args: directories: of `node` and `coordinator`."""
        self.directories = directories
        self.counts: dict[str, int] = {}
        self.dead: set[str] = set()
        self._fault: Fault | None = None
        self._patches: list[Any] = []

    def __enter__(self) -> Faults:
        for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "mkdir"), (tempfile, "mkstemp")):
            self._patches.append(mock.patch.object(module, name, self._watched(name, getattr(module, name))))
        for place, real in (
            ("shardnode.membership.join.channel_to_authority", tls.channel_to_authority),
            ("shardnode.membership.membership.secure_channel", tls.secure_channel),
        ):
            self._patches.append(mock.patch(place, self._intercepted(real)))
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()

    def begin(self, fault: Fault | None) -> None:
        """Count from the beginning; everybody lives again."""
        self._fault, self.counts = fault, {"node": 0, "coordinator": 0, "call": 0}
        self.dead.clear()

    def has_happened(self, fault: Fault) -> bool:
        """Tell whether there was such a step since `begin`."""
        return self.counts[fault.side] >= fault.at

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See grpc: one call of the node."""
        is_hit = self._step("call")
        if is_hit == "lost before":
            raise LostAnswer
        answer = continuation(details, request)
        if is_hit == "lost after":
            answer.result()
            raise LostAnswer
        return answer

    def _intercepted(self, real: Callable[..., grpc.Channel]) -> Callable[..., grpc.Channel]:
        return lambda *arguments, **options: grpc.intercept_channel(real(*arguments, **options), self)

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def touch(*arguments: Any, **options: Any) -> Any:
            place = options["dir"] if name == "mkstemp" and "dir" in options else arguments[0]
            path = os.readlink(f"/proc/self/fd/{place}") if name == "fsync" else os.fspath(place or "")
            for side, directory in self.directories.items():
                if not Path(path).is_relative_to(directory):
                    continue
                hit = self._step(side)
                if hit == "killed":
                    self.dead.add(side)
                    raise KilledHere(f"{name} {path}")
                if hit is not None and name != "unlink":  # to remove something takes no room
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
                if name == "fsync":
                    return None  # nothing here is lost by a power cut
            return real(*arguments, **options)

        return touch

    def _step(self, side: str) -> Kind | None:
        """Count one more step and return what becomes of it."""
        if side in self.dead:
            raise KilledHere(side)
        self.counts[side] = count = self.counts.get(side, 0) + 1
        fault = self._fault
        if fault is None or fault.side != side:
            return None
        return fault.kind if count == fault.at or (fault.kind == "full" and count > fault.at) else None

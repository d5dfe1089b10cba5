"""A model's tokenizer in processes of its own: whatever its files hold, this program goes on.

Covers: the `Tokenizer` of every model that is asked; how long a task may take; tasks whose process died.
Does not cover: those processes (nursery_program.py), starting them (nursery.py).
Threads: any; each task has a worker to itself, so that one which never ends delays no other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from common.errors import (
    CheckpointError,
    InputError,
    ModelError,
    ModelNotFound,
    ResourceError,
    ShardmeshError,
    UnsupportedModel,
)
from common.machine.operating_system import private_bytes
from common.program.logs import entry
from coordinator.tokenizer.apart_limits import LOAD_SECONDS
from coordinator.tokenizer.apart_messages import receive, send
from coordinator.tokenizer.nursery import Child, Nursery, child_of

log = logging.getLogger(__name__)

RENDER_SECONDS, ENCODE_SECONDS, DECODE_SECONDS = 5.0, 5.0, 2.0
"""Of processor time, for one task; of encoding, for each started million letters."""
WALL_FACTOR, WALL_SECONDS = 4, 20.0
"""How much longer a task may take by the clock, on a device that has other things to do."""
PATIENCE_SECONDS = 0.25
"""After that a task gives way to everything else that wants a processor."""
MOST_IDLE = 2
"""Workers that are kept for the next task; one more takes a few milliseconds."""
_LETTERS = 1_000_000
_LEAST_URGENT = 19
_ERRORS: dict[str, type[ShardmeshError]] = {
    error.reason: error for error in (InputError, ModelError, ModelNotFound, CheckpointError, UnsupportedModel)
}


class TokenizerApart:
    """A `Tokenizer` (contract.py). Its files are read when it is first used, or `begin` was called. Close it."""

    def __init__(self, nursery: Nursery, model: Path) -> None:
        self._nursery, self._model = nursery, model
        self._lock = threading.RLock()
        self._reader: Child | None = None
        self._about: dict[str, Any] | None = None
        self._refusal: ModelError | None = None
        self._idle: list[tuple[Child, bool]] = []

    def begin(self) -> None:
        """Have the files read from now on, without waiting for it. Raises: ResourceError."""
        with self._lock:
            if self._reader is None:
                self._reader = self._nursery.reader(self._model)

    @property
    def bos_id(self) -> int | None:
        value: int | None = self._read()["bos_id"]
        return value

    @property
    def eos_ids(self) -> frozenset[int]:
        return frozenset(self._read()["eos_ids"])

    @property
    def vocab_size(self) -> int:
        return int(self._read()["vocab_size"])

    @property
    def byte_token_ids(self) -> frozenset[int]:
        """Byte-fallback tokens: the text of a run of them is known only when the run has ended."""
        return frozenset(self._read()["byte_token_ids"])

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """See Tokenizer. Raises: InputError; CheckpointError: the tokenizer cannot, or takes too long."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not valid Unicode: character {error.start} is half a pair") from None
        seconds = ENCODE_SECONDS * (1 + len(text) // _LETTERS)
        answer = self._task({"do": "encode", "text": text, "adds": add_special_tokens}, seconds)
        ids = answer.get("ids")
        if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
            raise CheckpointError(f"the tokenizer in '{self._model}' gives what are no tokens")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer. Raises: CheckpointError: the tokenizer cannot, or takes too long."""
        return self._text(self._task({"do": "decode", "ids": list(ids)}, DECODE_SECONDS))

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """See Tokenizer. Raises: InputError: it has no template, or one that refuses, or that takes too long."""
        return self._text(self._task({"do": "render", "messages": [dict(one) for one in messages]}, RENDER_SECONDS))

    def own_bytes(self) -> int:
        """Return the memory that its processes, but those at work, add to this one's; what they share counts once."""
        with self._lock:
            total = self._nursery.own_bytes + (0 if self._about is None else int(self._about["own_bytes"]))
            process_ids = [child.process_id for child, _ in self._idle]
        for process_id in process_ids:
            with contextlib.suppress(psutil.Error):  # it has ended
                total += private_bytes(process_id)
        return total

    def close(self) -> None:
        """End its processes. It can be used again, and is read anew then."""
        with self._lock:
            for child, _ in self._idle:
                child.close()
            self._idle.clear()
            if self._reader is not None:
                self._reader.close()
            self._reader = self._about = None

    def _text(self, answer: dict[str, Any]) -> str:
        text = answer.get("text")
        if not isinstance(text, str):
            raise CheckpointError(f"the tokenizer in '{self._model}' gives what is no text")
        return text

    def _task(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Have a worker do a task; once more if its process died of something else than the task's own length."""
        renders = task["do"] == "render"
        for _ in range(2):
            worker = self._worker(renders=renders)
            began = time.monotonic()
            answer = _asked(worker, {**task, "seconds": seconds}, seconds)
            if answer is not None and "reason" not in answer:
                self._put_back(worker, renders=renders)
                return answer
            worker.close()
            if answer is not None:
                _raise(answer)
            took_seconds = time.monotonic() - began
            log.info("%s", entry("a process of a tokenizer has ended", model=self._model, task=task["do"],
                                    seconds=took_seconds))  # fmt: skip
            if took_seconds >= seconds / 2:
                break
        took = f"does not end within {seconds:.0f} s" if time.monotonic() - began >= seconds else "ends its process"
        if renders:
            raise InputError(f"the model's chat template {took} on this chat: ask without --chat")
        raise CheckpointError(f"the tokenizer in '{self._model}' {took} on this text, or takes too much memory")

    def _worker(self, *, renders: bool) -> Child:
        """Return a worker that has nothing to do. Raises: ModelError, ResourceError."""
        with self._lock:
            fitting = next((entry for entry in reversed(self._idle) if entry[1] or not renders), None)
            if fitting is not None:
                self._idle.remove(fitting)
                return fitting[0]
            for _ in range(2):
                self._read()
                assert self._reader is not None  # it was read just now
                with contextlib.suppress(OSError):
                    if (worker := child_of(self._reader.connection, {"renders": renders})) is not None:
                        return worker
                self._forget_reader()  # somebody, or the kernel, has ended it
        raise ResourceError("no process could be started for the model's tokenizer; the device is short of memory or "
                            "of processes")  # fmt: skip

    def _put_back(self, worker: Child, *, renders: bool) -> None:
        with self._lock:
            self._idle.append((worker, renders))
            surplus = self._idle.pop(0)[0] if len(self._idle) > MOST_IDLE else None
        if surplus is not None:
            surplus.close()

    def _read(self) -> dict[str, Any]:
        """Return what the reader says of the tokenizer, waiting until it does. Raises: ModelError, ResourceError."""
        about = self._about
        if about is not None:
            return about
        with self._lock:
            for _ in range(2):
                if self._refusal is not None:
                    raise self._refusal
                if self._about is not None:
                    return self._about
                self.begin()
                self._listen()
        raise CheckpointError(f"the tokenizer in '{self._model}' ends whatever reads it: it is damaged, or takes more "
                              "memory than there is")  # fmt: skip

    def _listen(self) -> None:
        assert self._reader is not None  # it has begun
        connection, began = self._reader.connection, time.monotonic()
        connection.settimeout(WALL_SECONDS + WALL_FACTOR * LOAD_SECONDS)
        try:
            told = receive(connection)
        except TimeoutError:
            told = None
        took = time.monotonic() - began
        if told is not None and "reason" not in told:
            self._about = told
            return
        self._forget_reader()
        try:
            if told is not None:
                _raise(told)
            if took >= LOAD_SECONDS:
                raise CheckpointError(f"the tokenizer in '{self._model}' cannot be read within {LOAD_SECONDS:.0f} s")
        except ModelError as error:  # of the same files it says the same again
            self._refusal = error

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._about = None


def _asked(worker: Child, task: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """Return a worker's answer; None where it has ended, or takes too long by the clock."""
    connection: socket.socket = worker.connection
    try:
        connection.settimeout(WALL_SECONDS)
        send(connection, task)
        connection.settimeout(PATIENCE_SECONDS)
        try:
            return receive(connection)
        except TimeoutError:
            with contextlib.suppress(OSError):  # it ends just now; a service may not
                os.setpriority(os.PRIO_PROCESS, worker.process_id, _LEAST_URGENT)
            connection.settimeout(WALL_SECONDS + WALL_FACTOR * seconds)
            return receive(connection)
    except OSError:
        return None


def _raise(told: dict[str, Any]) -> NoReturn:
    raise _ERRORS.get(str(told["reason"]), CheckpointError)(str(told.get("message")))

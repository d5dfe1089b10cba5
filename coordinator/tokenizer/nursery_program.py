"""The processes in which tokenizers and chat templates of models are read and run, as nobody knows what they hold.

    nursery   forked early, or started anew; has nothing of a model's; forks
      reader  one a model: reads its tokenizer, runs nothing of it; forks
        worker  several: encodes, decodes, renders, one task after another

Covers: their tasks, what they answer, how they end: with the process that asks, however that ends.
Does not cover: asking (nursery.py, apart.py), limits (apart_limits.py), what a tokenizer does (text_tokenizer.py).

Workers share a reader's pages, so one more takes a few milliseconds and a few MB. Whatever ends one, Rust that gives up
or the kernel for too much of anything, ends one task.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from common.errors import CheckpointError, InputError, ShardmeshError
from coordinator.tokenizer.apart_limits import (
    LOAD_BYTES,
    LOAD_SECONDS,
    TASK_BYTES,
    limit_memory,
    open_nothing_more,
    processor_seconds,
)
from coordinator.tokenizer.apart_messages import receive, send

if TYPE_CHECKING:
    from coordinator.tokenizer.text_tokenizer import TextTokenizer

_REQUEST_BYTES = 1 << 16
MOST_REASON_LETTERS = 2000


def serve(connection: socket.socket) -> NoReturn:
    """Be the nursery until nobody holds the other end; then end all that came of it."""
    _be_deaf()
    with contextlib.suppress(OSError):
        os.setsid()  # not again where we were started with one
    try:
        _fork_on_request(connection, lambda request, own: _read(str(request["model"]), own))
    finally:
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _fork_on_request(
    connection: socket.socket,
    child: Callable[[dict[str, Any], socket.socket], NoReturn],
    make_ready: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Fork a child for each request that comes with its end of a socket, until no more can come."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets them when they end
    gc.freeze()  # pages that the collector never touches stay shared
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 1)
        if not data or len(descriptors) != 1:
            return
        own, request = socket.socket(fileno=descriptors[0]), json.loads(data)
        make_ready(request)
        process_id = os.fork()
        if process_id == 0:
            try:
                connection.close()
                child(request, own)
            finally:
                os._exit(1)
        own.close()
        send(connection, {"process_id": process_id})


def _read(model: str, connection: socket.socket) -> NoReturn:
    """Be a reader: say what the tokenizer is, or what is wrong with it; then fork workers."""
    from common.machine.operating_system import be_first_to_go, end_with_parent, give_free_heap_back, private_bytes

    end_with_parent()
    be_first_to_go()
    _say_nothing()
    try:
        limit_memory(LOAD_BYTES)
        with processor_seconds(LOAD_SECONDS):
            tokenizer = _loaded(model)
            about = {
                "bos_id": tokenizer.bos_id, "eos_ids": sorted(tokenizer.eos_ids), "vocab_size": tokenizer.vocab_size,
                "byte_token_ids": sorted(tokenizer.byte_token_ids),
            }  # fmt: skip
    except BaseException as error:  # noqa: BLE001 - the edge to foreign code, whose panics are no Exception
        send(connection, _told(error, f"the tokenizer in '{model}'", CheckpointError))
        os._exit(0)
    gc.collect()
    give_free_heap_back()
    send(connection, about | {"own_bytes": private_bytes(os.getpid())})
    _fork_on_request(connection, lambda _, own: _work(tokenizer, own), _make_ready)
    os._exit(0)


def _make_ready(request: dict[str, Any]) -> None:
    """In a reader: import what its next worker needs, once; workers share it, and can open no file."""
    if request["renders"]:
        from coordinator.tokenizer.chat_template import be_ready

        be_ready()


def _loaded(model: str) -> TextTokenizer:
    from pathlib import Path

    from coordinator.tokenizer import load_tokenizer

    tokenizer: Any = load_tokenizer(Path(model))
    loaded: TextTokenizer = tokenizer
    return loaded


def _work(tokenizer: TextTokenizer, connection: socket.socket) -> NoReturn:
    """Be a worker: do one task after another until nobody asks any more, or one went wrong in a way of its own."""
    from common.machine.operating_system import end_with_parent

    end_with_parent()
    limit_memory(TASK_BYTES)
    open_nothing_more()
    while (task := receive(connection)) is not None:
        is_whole = True
        try:
            with processor_seconds(float(task["seconds"])):
                answer = _done(tokenizer, task)
        except BaseException as error:  # noqa: BLE001 - the edge to foreign code, whose panics are no Exception
            is_whole = isinstance(error, ShardmeshError)
            renders_now = task["do"] == "render"
            what = "the model's chat template" if renders_now else "the model's tokenizer"
            answer = _told(error, what, InputError if renders_now else CheckpointError)
        send(connection, answer)
        if not is_whole:
            break
    os._exit(0)


def _done(tokenizer: TextTokenizer, task: dict[str, Any]) -> dict[str, Any]:
    if task["do"] == "encode":
        return {"ids": tokenizer.encode(task["text"], add_special_tokens=task["adds"])}
    if task["do"] == "decode":
        return {"text": tokenizer.decode(task["ids"])}
    return {"text": tokenizer.chat_prompt(task["messages"])}


def _told(error: BaseException, what: str, kind: type[ShardmeshError]) -> dict[str, str]:
    """Return what is said of an error: ours as it is, of others what failed."""
    if isinstance(error, ShardmeshError):
        return {"reason": error.reason, "message": str(error)[:MOST_REASON_LETTERS]}
    if isinstance(error, MemoryError):
        return {"reason": kind.reason, "message": f"{what} takes more memory than it may"}
    lines = str(error).splitlines() or [""]
    return {"reason": kind.reason, "message": f"{what} cannot be used: {type(error).__name__} {lines[0][:200]}".strip()}


def _be_deaf() -> None:
    """Leave signals of a terminal, and of a service that ends, to whoever asks: answers under way still need us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _say_nothing() -> None:
    """Have what libraries print of a stranger's file go nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def main() -> NoReturn:
    """Be a nursery whose socket is its stdin."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    serve(socket.socket(fileno=os.dup(sys.stdin.fileno())))


if __name__ == "__main__":
    main()

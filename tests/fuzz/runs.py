"""Gives inputs to readers, one after another, in a process under limits; what it dies of, or raises, is kept.

Covers: which input is which, limits for each, going on after a death. Does not cover: readers (readers.py).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from coordinator.tokenizer.apart_limits import limit_memory, processor_seconds
from tests.fuzz.calls import call_readers
from tests.fuzz.readers import Reader, all_readers, is_ours

Read = Callable[[bytes], object]
SECONDS = 10.0
"""Of processor time, for one input."""
MEMORY_BYTES = 1 << 30
"""More than the process has at its start."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What went wrong with one input."""

    index: int
    reader: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some of the inputs of a seed: from `start` on, each `step`-th."""

    seed: int
    start: int
    stop: int
    step: int


def run(stretch: Stretch, kept: Path) -> tuple[int, list[Found]]:
    """Try all inputs of a stretch; return how many, and what went wrong. Args: kept: where such inputs are written."""
    found: list[Found] = []
    index, tried = stretch.start, 0
    while index < stretch.stop:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            directory = Path(name)
            child = os.fork()
            if child == 0:
                _run_child(stretch, index, directory)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            told = [json.loads(line) for line in (directory / "told").read_text().splitlines()]
            if not (directory / "current.json").exists() or not (directory / "current.json").stat().st_size:
                raise RuntimeError((directory / "end").read_text())
            last = json.loads((directory / "current.json").read_text())
            failures = [Found(**one) for one in told]
            if code:
                failures.append(
                    Found(
                        index=last["index"],
                        reader=last["reader"],
                        what=f"its process ended with {code}: {_last_words(directory)}",
                    )
                )
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{stretch.seed}-{last['index']}-{last['reader']}.bin").write_bytes(
                    (directory / "current").read_bytes()
                )
            for one in told:
                kept.mkdir(parents=True, exist_ok=True)
                name = f"{stretch.seed}-{one['index']}-{one['reader']}.bin"
                (kept / name).write_bytes((directory / f"bad-{one['index']}").read_bytes())
            found += failures
            tried += (last["index"] - index) // stretch.step + 1
            index = last["index"] + stretch.step
    return tried, found


def _last_words(directory: Path) -> str:
    """Return what a process has said of its end, if it came to that."""
    told = directory / "end"
    return " | ".join(told.read_text().splitlines()[-4:]) if told.exists() else "without a word"


def _run_child(stretch: Stretch, index: int, directory: Path) -> NoReturn:
    """Try inputs from one on, to the end or to a death."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        (directory / "told").touch()
        (directory / "work").mkdir()
        readers = [*all_readers(directory / "work"), *call_readers(directory / "calls")]
        limit_memory(MEMORY_BYTES)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        current = os.open(directory / "current", os.O_RDWR | os.O_CREAT)
        about = os.open(directory / "current.json", os.O_RDWR | os.O_CREAT)
        for number in range(index, stretch.stop, stretch.step):
            reader, data = input_of(readers, stretch.seed, number)
            _write(current, data)
            _write(about, json.dumps({"index": number, "reader": reader.name}).encode())
            _try(reader, data, number, directory)
        code = 0
    except BaseException:  # noqa: BLE001 - the edge of a process
        (directory / "end").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def input_of(readers: Sequence[Reader], seed: int, index: int) -> tuple[Reader, bytes]:
    """Return who reads an input, and the input."""
    chance = random.Random(f"{seed}:{index}")
    (reader,) = chance.choices(readers, [one.share for one in readers])
    return reader, reader.mutate(chance.choice(reader.seeds), chance)


def _try(reader: Reader, data: bytes, index: int, directory: Path) -> None:
    began = time.monotonic()
    try:
        with processor_seconds(SECONDS):
            reader.read(data)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        if is_ours(error) and "\n" not in str(error):
            return
        trace = traceback.extract_tb(sys.exc_info()[2])
        where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(trace[-4:]))
        what = f"{type(error).__name__}: {str(error)[:200]} at {where} after {time.monotonic() - began:.1f} s"
        (directory / f"bad-{index}").write_bytes(data)
        with (directory / "told").open("a") as told:
            told.write(json.dumps({"index": index, "reader": reader.name, "what": what}) + "\n")


def _write(descriptor: int, data: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)

"""An answer as a person or a program reads it: text as it comes, then a report on stderr or one JSON document.

Covers: answers of nodes that this command starts, and of a running coordinator: both are events. Does not cover: making
them. Imports neither torch nor a tokenizer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.errors import InternalError, ResourceError
from common.wording import counted, plain
from coordinator.answering.requests import Event, Failed, Finished, Notice, Started, Token
from coordinator.cli.telling import say
from coordinator.engine.timings import Timings

Memory = Mapping[str, Mapping[str, int]]
"""By process, coordinator first: bytes by what they are."""


NOT_OBEYED = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Control characters, which begin sequences that move, colour and rename."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One complete answer."""

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    text: str
    finish_reason: str | None
    timings: Timings
    memory: Memory


def write_events(events: Iterable[Event], *, echo: bool) -> Answer:
    """Write text as it comes, notices to stderr, and return the whole answer.

    Raises: what an answer has failed with, once the line that it broke off in has ended; as `write_text`.
    """
    prompt_ids: tuple[int, ...] = ()
    token_ids: list[int] = []
    pieces: list[str] = []
    for event in events:
        if isinstance(event, Started):
            prompt_ids = event.prompt_token_ids
        elif isinstance(event, Notice):
            write_notice(event.text)
        elif isinstance(event, Failed):
            if echo and any(pieces):
                write_text("\n")
            raise event.error
        else:
            if isinstance(event, Token):
                token_ids.append(event.token_id)
            pieces.append(event.text)
            if echo:
                write_text(event.text + ("\n" if isinstance(event, Finished) else ""))
        if isinstance(event, Finished):
            return Answer(
                prompt_ids=prompt_ids, token_ids=token_ids, text="".join(pieces), finish_reason=event.reason,
                timings=event.timings, memory=event.memory,
            )  # fmt: skip
    raise InternalError("an answer without an end")


def write_text(text: str) -> None:
    """Write to stdout at once; on a terminal what a model makes is shown and not obeyed.

    Raises: BrokenPipeError: the reader has gone; ResourceError: it cannot be written.
    """
    try:
        sys.stdout.write(text.translate(NOT_OBEYED) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(f"cannot write the text to stdout: {error.strerror}; nothing more was generated") from error


def write_notice(text: str) -> None:
    """Write to stderr what the one who waits should know; on a line of its own, also in the middle of an answer."""
    print(f"\nnote: {plain(text)}", file=sys.stderr)


def write_json(answer: Answer) -> None:
    """Write the whole answer as one JSON document."""
    document = {
        "prompt_token_ids": list(answer.prompt_ids),
        "token_ids": list(answer.token_ids),
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "timings": {
            "ttft_seconds": answer.timings.ttft_seconds,
            "seconds_per_token": answer.timings.seconds_per_token,
            "tokens_per_second": answer.timings.tokens_per_second,
        },
        "memory": {name: dict(values) for name, values in answer.memory.items()},
    }
    write_text(json.dumps(document, ensure_ascii=False) + "\n")


def write_report(answer: Answer, engine: str = "") -> None:
    """Write what the answer took to stderr. Args: engine: what computed it, for people."""
    nodes = [name for name in answer.memory if name != "coordinator"]
    peaks = ", ".join(f"{name} {values.get('peak_rss_bytes', 0) / 1e6:.0f}" for name, values in answer.memory.items())
    pss_bytes = sum(values.get("pss_bytes", 0) for values in answer.memory.values())
    together = f"; {pss_bytes / 1e6:.0f} MB in all, shared pages once" if pss_bytes else ""
    where = f" on {counted(len(nodes), 'node')}" if nodes else ""
    timings, prompt = answer.timings, counted(len(answer.prompt_ids), "prompt token")
    print(file=sys.stderr)
    for line in (
        f"{prompt}, {len(answer.token_ids)} generated ({answer.finish_reason}){where}",
        f"first token after {timings.ttft_seconds:.2f} s, then {timings.tokens_per_second:.1f} tokens/s{engine}",
        f"peak memory, MB: {peaks}{together}" if nodes else "peak memory: a node could not be asked any more",
    ):
        say(line, to_stderr=True)

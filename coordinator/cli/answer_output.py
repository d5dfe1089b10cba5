"""An answer as a person or a program reads it: text as it comes, then a report on stderr or one JSON document.

Covers: answers of nodes that this command starts, and of a running coordinator: both are events. Does not cover: making
them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import InternalError
from common.program.program_start import seconds_since_start
from common.wording import counted, plain
from coordinator.answering.requests import Event, Failed, Finished, Notice, Reading, Started, Token
from coordinator.cli.answer_screen import AnswerScreen, write_text
from coordinator.engine.likelihoods import Likelihoods
from coordinator.engine.timings import Timings

Memory = Mapping[str, Mapping[str, int]]
"""By process, coordinator first: bytes by what they are; process_id and checksum_nanoseconds too."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One complete answer."""

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    text: str
    finish_reason: str | None
    timings: Timings
    startup_seconds: float
    """From the start of this command until its request was one."""
    total_seconds: float
    """From the start of this command to the end of the answer."""
    memory: Memory
    likelihoods: Sequence[Likelihoods] = ()
    """Of each token, where they are wanted."""

    @property
    def checksum_seconds(self) -> float:
        """Processor time of all processes that checking weights took, when they were first read."""
        return sum(values.get("checksum_nanoseconds", 0) for values in self.memory.values()) / 1e9


def write_events(events: Iterable[Event], screen: AnswerScreen) -> Answer:
    """Write text as it comes, notices to stderr, and return the whole answer.

    Raises: what an answer has failed with, once the line that it broke off in has ended; as `write_text`.
    """
    first_token_at = 0.0
    prompt_ids: tuple[int, ...] = ()
    token_ids: list[int] = []
    pieces: list[str] = []
    likelihoods: list[Likelihoods] = []
    for event in events:
        if isinstance(event, Started):
            prompt_ids = event.prompt_token_ids
            screen.wait(_reading(0, len(prompt_ids)))
        elif isinstance(event, Reading):
            screen.wait(_reading(event.read_count, event.prompt_count))
        elif isinstance(event, Notice):
            screen.note(plain(event.text))
        elif isinstance(event, Failed):
            screen.end_line()
            raise event.error
        else:
            if isinstance(event, Token):
                token_ids.append(event.token_id)
                likelihoods += [event.likelihoods] if event.likelihoods is not None else []
                first_token_at = first_token_at or seconds_since_start()
            pieces.append(event.text)
            screen.text(event.text + ("\n" if isinstance(event, Finished) else ""))
        if isinstance(event, Finished):
            return Answer(
                prompt_ids=prompt_ids, token_ids=token_ids, text="".join(pieces), finish_reason=event.reason,
                timings=event.timings, memory=event.memory, likelihoods=likelihoods,
                startup_seconds=max(0.0, first_token_at - event.timings.ttft_seconds),
                total_seconds=seconds_since_start(),
            )  # fmt: skip
    raise InternalError("an answer without an end")


def _reading(read_count: int, prompt_count: int) -> str:
    return f"reading the prompt: {read_count} of {counted(prompt_count, 'token')}"


def write_json(answer: Answer, critical_path: Mapping[str, Mapping[str, float]] | None = None) -> None:
    """Write the whole answer as one JSON document.

    Args: critical_path: by node and cause, seconds that sweeps waited for it, if it is this command that knows.
    """
    document: dict[str, Any] = {
        "prompt_token_ids": list(answer.prompt_ids),
        "token_ids": list(answer.token_ids),
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "timings": {
            "startup_seconds": answer.startup_seconds,
            "ttft_seconds": answer.timings.ttft_seconds,
            "seconds_per_token": answer.timings.seconds_per_token,
            "tokens_per_second": answer.timings.tokens_per_second,
            "checksum_seconds": answer.checksum_seconds,
        },
        "memory": {name: dict(values) for name, values in answer.memory.items()},
    }
    if answer.likelihoods:
        document["logprobs"] = [
            {
                "logprob": one.logprob,
                "likeliest": [{"token_id": token_id, "logprob": logprob} for token_id, logprob in one.likeliest],
            }
            for one in answer.likelihoods
        ]
    if critical_path is not None:
        document["timings"]["critical_path"] = critical_path
    write_text(json.dumps(document, ensure_ascii=False) + "\n")


def write_report(answer: Answer, engine: str = "") -> None:
    """Write what the answer took to stderr. Args: engine: what computed it, for people, if it was this command."""
    from coordinator.cli.telling import say  # rich, for which no answer has to wait

    nodes = [name for name in answer.memory if name != "coordinator"]
    peaks = ", ".join(f"{name} {values.get('peak_rss_bytes', 0) / 1e6:.0f}" for name, values in answer.memory.items())
    apart = answer.memory.get("coordinator", {}).get("tokenizer_bytes", 0)
    peaks += f", tokenizer {apart / 1e6:.0f}" if apart else ""
    pss_bytes = sum(values.get("pss_bytes", 0) for values in answer.memory.values()) + apart
    together = f"; {pss_bytes / 1e6:.0f} MB in all, shared pages once" if pss_bytes else ""
    where = f" on {counted(len(nodes), 'node')}" if nodes else ""
    checked = f"; weights checked in {answer.checksum_seconds:.2f} s of processor time" if engine else ""
    timings, prompt = answer.timings, counted(len(answer.prompt_ids), "prompt token")
    first = answer.startup_seconds + timings.ttft_seconds
    speed = (f"first token after {first:.2f} s (start-up {answer.startup_seconds:.2f} s, prompt "
             f"{timings.ttft_seconds:.2f} s), then {timings.tokens_per_second:.1f} tokens/s; "
             f"{answer.total_seconds:.2f} s in all{engine}")  # fmt: skip
    print(file=sys.stderr)
    for line in (
        f"{prompt}, {len(answer.token_ids)} generated ({answer.finish_reason}){where}{checked}",
        speed,
        f"peak memory, MB: {peaks}{together}" if nodes else "peak memory: a node could not be asked any more",
    ):
        say(line, to_stderr=True)

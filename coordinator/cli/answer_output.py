"""An answer as a person or a program reads it: text as it comes, then a report on stderr or one JSON document.

Covers: answers of nodes that this command starts, and of a running coordinator. Does not cover: making them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import ResourceError
from coordinator.engine.timings import Timings

Memory = Mapping[str, Mapping[str, int]]
"""By process, coordinator first: bytes by what they are."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One complete answer."""

    prompt_ids: Sequence[int]
    token_ids: Sequence[int]
    text: str
    finish_reason: str | None
    timings: Timings
    memory: Memory


def write_text(text: str) -> None:
    """Write to stdout at once. Raises: BrokenPipeError: the reader has gone; ResourceError: it cannot be written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(f"cannot write the text to stdout: {error.strerror}; nothing more was generated") from error


def write_notice(text: str) -> None:
    """Write to stderr what the one who waits should know; on a line of its own, also in the middle of an answer."""
    print(f"\nnote: {text}", file=sys.stderr)


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
    print(
        f"\n{len(answer.prompt_ids)} prompt tokens, {len(answer.token_ids)} generated "
        f"({answer.finish_reason}) on {len(nodes)} node{'s' if len(nodes) > 1 else ''}\n"
        f"first token after {answer.timings.ttft_seconds:.2f} s, then {answer.timings.tokens_per_second:.1f} tokens/s"
        f"{engine}\npeak memory, MB: {peaks}{together}",
        file=sys.stderr,
    )

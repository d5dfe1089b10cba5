"""What does a program that serves others write down of their requests? Names, counts and times; never what was said.

Does not cover: entries themselves (common/program/logs.py).
"""

from __future__ import annotations

import logging

from common.errors import InputError, InternalError, ShardmeshError
from common.program.logs import entry
from coordinator.answering.answer_stream import AnswerStream, Ended

log = logging.getLogger(__name__)


def tell_log(stream: AnswerStream, end: Ended | Exception) -> None:
    """Write down how a request ended; not of this program's own user, who is told once."""
    if not stream.ask.who:
        return
    about: dict[str, object] = {"request": stream.ask.request_id, "who": stream.ask.who}
    if stream.prepared is not None:
        sequence = stream.prepared.sequence
        about |= {
            "model": stream.prepared.model.name, "prompt_tokens": len(sequence.prompt_ids),
            "answer_tokens": len(sequence.generated_ids),
        }  # fmt: skip
    if isinstance(end, Exception):
        reason = end.reason if isinstance(end, ShardmeshError) else InternalError.reason
        # What is wrong with a request may be told with its words; what failed here is told by names and numbers.
        words = {} if isinstance(end, InputError) or not isinstance(end, ShardmeshError) else {"error": str(end)}
        log.warning("%s", entry("request failed", **about, reason=reason, **words))
    else:
        log.info("%s", entry("request ended", **about, reason=end.reason, seconds=stream.timings.total_seconds))

"""Which requests are under way, whether one more may come, and how each ended.

Covers: the most at once, refusing new ones once the program is told to end, one end for each.
Does not cover: running them (answers.py).
Threads: any.
"""

from __future__ import annotations

import logging
import threading

from common.errors import NodeError, QueueFull
from common.program.logs import entry
from coordinator.answering.answer_stream import AnswerStream, Ended
from coordinator.answering.request_log import tell_log
from coordinator.answering.request_series import MOST_ASKED, RequestSeries

log = logging.getLogger(__name__)


class UnderWay:
    """Requests that were taken and have not ended."""

    def __init__(self, series: RequestSeries) -> None:
        self._series = series
        series.under_way = self.all
        self._changed = threading.Condition()
        self._streams: set[AnswerStream] = set()
        self._is_refusing = False
        self._closing = "the coordinator has ended; ask again when it is back"
        self._ended_token_count = 0

    def add(self, stream: AnswerStream) -> None:
        """Take one more. Raises: QueueFull: too many are under way; NodeError: the program is ending."""
        refusal: QueueFull | NodeError | None = None
        with self._changed:
            if self._is_refusing:
                refusal = NodeError("the coordinator is ending; ask again when it is back")
            elif len(self._streams) >= MOST_ASKED:
                refusal = QueueFull(f"{MOST_ASKED} requests are under way; ask again when one has ended")
            else:
                self._streams.add(stream)
        if refusal is not None:
            self._series.refused(stream.ask.model, refusal)
            raise refusal

    def end(self, stream: AnswerStream, end: Ended | Exception) -> bool:
        """Tell a request how it ended, and return whether it was under way until now; nothing for one that was not."""
        with self._changed:
            if stream not in self._streams:
                return False
            self._streams.remove(stream)
            self._ended_token_count += stream.token_count
            tell_log(stream, end)  # before anybody can ask what there is of it
            self._count(stream, end)
            stream.put(end)
            self._changed.notify_all()
        return True

    def _count(self, stream: AnswerStream, end: Ended | Exception) -> None:
        if isinstance(end, Exception):
            self._series.failed(stream.model_name or self._series.named(stream.ask.model), end)
        else:
            self._series.succeeded(stream.model_name, end.reason)
            stream.count_end(end.reason)

    def all(self) -> list[AnswerStream]:
        """Return those that are under way now."""
        with self._changed:
            return list(self._streams)

    def token_count(self) -> int:
        """Return the tokens of all answers so far, those that have ended included."""
        with self._changed:
            return self._ended_token_count + sum(stream.token_count for stream in self._streams)

    def names(self) -> str:
        """Return what the requests under way are called, as an entry of the log names them."""
        return ",".join(stream.ask.request_id for stream in self.all())

    def refuse_new(self) -> None:
        """Take no more from now on."""
        with self._changed:
            self._is_refusing = True

    def drain(self, limit_seconds: float) -> bool:
        """Take no more, and return whether all have ended, at the latest after the limit."""
        self.refuse_new()
        with self._changed:
            if self._streams:
                log.info("%s", entry("ending", answers=len(self._streams), most_seconds=limit_seconds))
            are_done = self._changed.wait_for(lambda: not self._streams, limit_seconds)
            if not are_done:
                self._closing = (f"the coordinator was told to end, and the answer was not complete within "
                             f"{limit_seconds:g} s; ask again when it is back")  # fmt: skip
                log.warning(
                    "%s", entry("ending what is not complete", answers=len(self._streams), seconds=limit_seconds)
                )
        return are_done

    def closing(self) -> NodeError:
        """Return what those are told that the end of the program ends."""
        return NodeError(self._closing)

"""One load as all who watch it see it, from its beginning until it has ended, and afterwards.

Covers: news for any number of watchers, whenever they come; how it stands. Does not cover: doing it (model_worker.py).
Threads: one tells, any number watch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from common.errors import ShardmeshError
from protos.shardmesh.v1 import models_pb2


class LoadUnderWay:
    """A load."""

    def __init__(self, name: str, request: models_pb2.LoadModelRequest) -> None:
        self.name, self.request = name, request
        self.stop_reason: ShardmeshError | None = None
        """Why it was told to end; set by whoever tells it."""
        self.has_ended = False
        self.failure: ShardmeshError | None = None
        """Why the model is not there, once it has ended."""
        self._changed = threading.Condition()
        accepted = models_pb2.LoadAccepted(name=name)
        self._news = [models_pb2.LoadModelResponse(accepted=accepted)]
        self._progress: dict[str, models_pb2.LoadProgress] = {}
        self._total_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether its plan is made, so that it has left something somewhere."""
        return self._total_bytes > 0

    def tell(self, text: str) -> None:
        """Tell a person who watches."""
        self._add(models_pb2.LoadModelResponse(told=text))

    def plan(self, planned: models_pb2.LoadPlanned, total_bytes: int) -> None:
        """Say who will hold what, and how much that is in all."""
        self._total_bytes = total_bytes
        self._add(models_pb2.LoadModelResponse(planned=planned))

    def progress(self, progress: models_pb2.LoadProgress) -> None:
        """Say how far one slice is."""
        with self._changed:
            self._progress[progress.node] = progress
            self._changed.notify_all()

    def arrive(self, arrivals: models_pb2.LoadArrivals) -> None:
        """Say what came of each slice: the model is there."""
        self._add(models_pb2.LoadModelResponse(arrivals=arrivals))

    def end(self, failure: ShardmeshError | None = None) -> None:
        """Say that nothing more comes; the first to say so is right."""
        with self._changed:
            if self.has_ended:
                return
            self.failure, self.has_ended = failure, True
            self._changed.notify_all()

    def wait(self, limit_seconds: float | None = None) -> bool:
        """Wait for the end; return whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self.has_ended, limit_seconds)

    def wake(self) -> None:
        """Have watchers look whether they are still wanted."""
        with self._changed:
            self._changed.notify_all()

    def watch(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[models_pb2.LoadModelResponse]:
        """Yield all news from the beginning on, of progress the newest. Raises: what the load has failed with."""
        known, shown = 0, dict[str, models_pb2.LoadProgress]()
        while True:
            news, progress, has_ended = self._later_than(known, shown, is_wanted)
            if not is_wanted():
                return
            # A slice's progress comes after the plan that names its node, and before the arrivals.
            arrivals = [one for one in news if one.WhichOneof("part") == "arrivals"]
            yield from (one for one in news if one not in arrivals)
            for node, one in progress.items():
                if shown.get(node) != one:
                    yield models_pb2.LoadModelResponse(progress=one)
            yield from arrivals
            known, shown = known + len(news), progress
            if has_ended:
                if self.failure is not None:
                    raise self.failure
                return

    def _later_than(
        self, known: int, shown: dict[str, models_pb2.LoadProgress], is_wanted: Callable[[], bool]
    ) -> tuple[list[models_pb2.LoadModelResponse], dict[str, models_pb2.LoadProgress], bool]:
        """Wait for something that a watcher has not seen; return news, all progress, and whether that is the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._news) > known or self._progress != shown or self.has_ended or not is_wanted()
            )
            return self._news[known:], dict(self._progress), self.has_ended

    def standing(self) -> models_pb2.LoadStanding:
        """Return how it stands."""
        with self._changed:
            return models_pb2.LoadStanding(
                name=self.name, is_under_way=not self.has_ended, failure=str(self.failure or ""),
                arrived_bytes=sum(one.arrived_bytes for one in self._progress.values()), total_bytes=self._total_bytes,
            )  # fmt: skip

    def _add(self, news: models_pb2.LoadModelResponse) -> None:
        with self._changed:
            self._news.append(news)
            self._changed.notify_all()

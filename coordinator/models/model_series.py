"""The series of models: which are loaded, onto how many nodes, which node serves which, how loads have ended.

Covers: names; what the records on disk say, read again when one has changed. Does not cover: loading
(program/model_worker.py), requests for models (answering/request_series.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from common.errors import ShardmeshError
from common.program.logs import entry
from common.program.process_series import kept_for
from common.program.scraped_series import ScrapedGauge
from common.program.tallies import CounterTallies
from coordinator.models.records import LoadedModel, LoadedModels

PREFIX = "shardmesh_coordinator"
OUTCOMES = ("done", "error", "cancelled")

LOOK_SECONDS = 0.5
"""One page asks many times."""

log = logging.getLogger(__name__)


class ModelSeries:
    """Series by model."""

    def __init__(self, registry: CollectorRegistry | None = None, models: LoadedModels | None = None) -> None:
        """Args: registry: the process's; one of its own where nobody looks. models: which are loaded."""
        r = registry or CollectorRegistry()
        self.serves: Callable[[str, int, str], bool] = lambda node, rank, model_identity: False
        """Tells whether a node serves this rank of this model now."""
        self._models = models
        self._now = kept_for(LOOK_SECONDS, self._stamp_now)
        self._lock = threading.Lock()
        self._stamp: object = None
        self._read: dict[str, LoadedModel] = {}
        self.loads = CounterTallies(f"{PREFIX}_loads", "Loads of models by outcome.", ["outcome"], registry=r)
        """One load after another moves it."""
        for outcome in OUTCOMES:
            self.loads.of(outcome)
        loaded = ScrapedGauge(f"{PREFIX}_model_loaded", "1 for each model that is loaded.", ["model"], registry=r)
        loaded.set_function(lambda: {(name,): 1 for name in self.loaded()})
        nodes = ScrapedGauge(f"{PREFIX}_model_nodes", "Nodes that a model is cut over.", ["model"], registry=r)
        nodes.set_function(lambda: {(name,): len(model.node_names) for name, model in self.loaded().items()})
        serving = ScrapedGauge(
            f"{PREFIX}_node_serves", "1 for each node that is heard and serves its part of a model now.",
            ["node", "model"], registry=r,
        )  # fmt: skip
        serving.set_function(self._serving)

    def loaded(self) -> Mapping[str, LoadedModel]:
        """Return the models that are loaded, by name; as they were when a record is damaged. From any thread."""
        if self._models is None:
            return {}
        with self._lock:
            stamp = self._now()
            if stamp != self._stamp:
                try:
                    self._read = {model.name: model for model in self._models.all()}
                except ShardmeshError as error:
                    log.warning("%s", entry("series of models are as they were", error=error))
                self._stamp = stamp
            return self._read

    def _stamp_now(self) -> object:
        return None if self._models is None else self._models.stamp()

    def _serving(self) -> Mapping[tuple[str, ...], float]:
        return {
            (node, name): 1
            for name, model in self.loaded().items()
            for rank, node in enumerate(model.node_names)
            if self.serves(node, rank, model.description.model_identity)
        }

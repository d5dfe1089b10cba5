"""The series of models: which are loaded, in which encodings, onto which nodes, how loads have ended, what they sent.

Covers: names; what the records on disk say, read again when one has changed. Does not cover: loading
(program/model_worker.py), requests for models (answering/request_series.py).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from common.errors import ShardmeshError
from common.program.logs import entry
from common.program.process_series import kept_for
from common.program.scraped_series import ScrapedGauge
from common.program.tallies import CounterTallies
from common.weights.slice_description import SliceDescription
from coordinator.models.records import LoadedModel, LoadedModels

PREFIX = "shardmesh_coordinator"
OUTCOMES = ("done", "error", "cancelled")
SENT, THERE = "sent", "there"
"""Where the bytes of nodes' slices come from when a model is loaded."""

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
        self._weights: Mapping[tuple[str, ...], float] = {}
        self._counted: object = None
        """The models that these are of."""
        self.loads = CounterTallies(f"{PREFIX}_loads", "Loads of models by outcome.", ["outcome"], registry=r)
        """One load after another moves it."""
        for outcome in OUTCOMES:
            self.loads.of(outcome)
        self._brought = CounterTallies(
            f"{PREFIX}_slice_bytes", "Bytes of nodes' slices that loads brought: sent, or there already.",
            ["model", "origin"], registry=r,
        )  # fmt: skip
        weights = ScrapedGauge(
            f"{PREFIX}_model_weight_bytes", "Bytes of a loaded model's slices by the encoding of their tensors.",
            ["model", "encoding"], registry=r,
        )  # fmt: skip
        weights.set_function(self._weights_now)
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

    def brought(self, model: str, sent_bytes: Sequence[int], total_bytes: Sequence[int]) -> None:
        """Count what a load has brought. Args: by node, of its slice; what was sent twice counts twice."""
        self._brought.of(model, SENT).value += sum(sent_bytes)
        self._brought.of(model, THERE).value += sum(
            max(0, total - sent) for sent, total in zip(sent_bytes, total_bytes, strict=True)
        )

    def _weights_now(self) -> Mapping[tuple[str, ...], float]:
        """Return bytes by model and encoding; made again when a record has changed."""
        models = self.loaded()
        with self._lock:
            if self._counted is not models:
                self._weights = {
                    (name, encoding): byte_count
                    for name, model in models.items()
                    for encoding, byte_count in bytes_by_encoding(model.description).items()
                }
                self._counted = models
            return self._weights

    def _stamp_now(self) -> object:
        return None if self._models is None else self._models.stamp()

    def _serving(self) -> Mapping[tuple[str, ...], float]:
        return {
            (node, name): 1
            for name, model in self.loaded().items()
            for rank, node in enumerate(model.node_names)
            if self.serves(node, rank, model.description.model_identity)
        }


def bytes_by_encoding(description: SliceDescription) -> Mapping[str, int]:
    """Return what the tensors of all slices of a model's plan take, the coordinator's own included."""
    found: Counter[str] = Counter()
    for one in description.all_ranks():
        for layout in one.layouts().values():
            for tile in layout.tiles:
                for place in tile.tensors:
                    found[place.dtype] += place.byte_count
    return found

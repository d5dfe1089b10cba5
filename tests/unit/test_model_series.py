"""Do the series of models tell in which encodings one is loaded, and what its loads have sent and found?

Covers: coordinator/models/model_series.py. Does not cover: who moves them (test_model_worker.py), the page
(tests/contract/test_metrics_page.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.weights.model_encodings import AS_THE_FILE
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from coordinator.models import model_series
from coordinator.models.model_series import ModelSeries, bytes_by_encoding
from coordinator.models.records import LoadedModels
from tests.support.packed_models import plain_encodings
from tests.support.planned_models import DESCRIPTION
from tests.support.series_totals import total_of

WEIGHTS, BROUGHT = "shardmesh_coordinator_model_weight_bytes", "shardmesh_coordinator_slice_bytes_total"
NODE_NAMES = [f"node-{rank}" for rank in range(DESCRIPTION.plan.world_size)]


def half_in_q8_0() -> SliceDescription:
    """Return a model whose head and embedding are blocks, and whose layers are not."""
    encodings = replace(plain_encodings(DESCRIPTION.spec, "float16"), embedding="q8_0", head="q8_0")
    return replace(DESCRIPTION, dtype=AS_THE_FILE, encodings=encodings)


def load(records: LoadedModels, description: SliceDescription) -> None:
    """Write down that a model is loaded."""
    model = records.future("small", Path("/models/small"), replace(description, rank=COORDINATOR_RANK), NODE_NAMES)
    model.directory.mkdir(parents=True, exist_ok=True)
    records.save(model)


def test_bytes_are_told_by_encoding_and_add_up_to_all_tensors() -> None:
    """Of every slice, the coordinator's own too; vectors are float32 in any."""
    found = bytes_by_encoding(half_in_q8_0())
    assert set(found) == {"q8_0", "float16", "float32"}
    spec = DESCRIPTION.spec
    blocks = spec.vocab_size * spec.hidden_size // 32 * 34
    assert found["q8_0"] == blocks * (1 if spec.tied_embeddings else 2)
    assert 0 < found["float32"] < found["float16"]


def test_the_page_tells_what_is_loaded_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded again in another form, it is that form; what loads brought only grows."""
    monkeypatch.setattr(model_series, "LOOK_SECONDS", 0.0)
    records, registry = LoadedModels(tmp_path), CollectorRegistry()
    series = ModelSeries(registry, records)
    assert total_of(registry, WEIGHTS) == 0
    for description in (DESCRIPTION, half_in_q8_0()):
        load(records, description)
        assert total_of(registry, WEIGHTS, model="small") == sum(bytes_by_encoding(description).values())
    series.brought("small", [5, 12], [10, 10])
    series.brought("small", [0, 0], [10, 10])
    assert total_of(registry, BROUGHT, model="small", origin="sent") == 17
    assert total_of(registry, BROUGHT, model="small", origin="there") == 25

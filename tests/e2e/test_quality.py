"""Does `coordinator-cli quality` say how much fewer bits change, in a small model of which we know?

Covers: the verb over real nodes, once as a program, its document, mistakes, what is left behind. Does not cover: real
models' figures (DECISIONS.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import EXIT_INPUT
from tests.e2e.conftest import RunHere
from tests.support.cli import Finished, Shell
from tests.support.random_models import build, save

TEXT = "the devices of a house hold a slice of every layer each, and add up what they find. " * 4


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model whose rows are whole blocks."""
    return save(build(hidden_size=128, intermediate_size=256, query_heads=4, kv_heads=2, head_size=32), tmp_path / "m")


def measured(run: Callable[..., Finished], model: Path, text: Path, *options: str) -> dict[str, Any]:
    """Return the verb's document."""
    done = run("coordinator-cli", "quality", str(model), str(text), "--json", "--tokens", "60", *options)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_fewer_bits_change_more_and_the_models_own_nothing(
    shell: Shell, here: RunHere, model: Path, tmp_path: Path
) -> None:
    """Eight bits move what a model says a little, four more; no file that was made for it is left."""
    text = tmp_path / "text"
    text.write_text(TEXT)
    own, eight, four = (
        measured(run, model, text, "--weights-dtype", dtype)
        for run, dtype in ((here, "float32"), (shell.run, "q8_0"), (here, "q4_0"))
    )  # fmt: skip
    whole = measured(here, model, text, "--weights-dtype", "q8_0", "--activations", "int8")
    assert (eight["activations"], whole["activations"]) == ("float32", "int8")
    assert 0 < whole["mean_divergence_nats"] != eight["mean_divergence_nats"]
    assert whole["slice_bytes"] == eight["slice_bytes"]
    assert own["mean_divergence_nats"] < 1e-9
    assert own["same_likeliest_share"] == 1.0
    assert own["perplexity"]["source"] == pytest.approx(own["perplexity"]["judged"])
    assert 0 < eight["mean_divergence_nats"] < four["mean_divergence_nats"] / 10
    assert own["slice_bytes"]["judged"] > eight["slice_bytes"]["judged"] > four["slice_bytes"]["judged"]
    assert own["token_count"] == 59
    assert sorted(path.name for path in model.iterdir() if path.name.startswith(".quality")) == []


@pytest.mark.parametrize("words", [("--tokens", "1"), ("--weights-dtype", "q3_x"), ("--weights-dtype", "gguf")])
def test_what_cannot_be_measured_is_refused_in_one_line(here: RunHere, model: Path, words: tuple[str, str]) -> None:
    """Too short a text, a dtype that there is not, blocks that the model has none of."""
    text = model.parent / "text"
    text.write_text(TEXT)
    done = here("coordinator-cli", "quality", str(model), str(text), *words)
    assert (done.code, done.out) == (EXIT_INPUT, "")
    assert done.err.count("\n") == 1

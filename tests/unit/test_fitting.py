"""Is it told what a plan lacks, and does what is said to fit really fit?

Covers: budgets, disks, dtypes, strategies, more nodes; the verb's exit code. Does not cover: predictions themselves
(tests/property/test_planning.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import EXIT_OK, ResourceError
from coordinator.cli.main import program
from coordinator.planning.devices import read_devices
from coordinator.planning.fitting import check_fits
from coordinator.planning.outline import outline_of
from coordinator.planning.prediction import Devices, Workload
from coordinator.planning.strategies import plan_for

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 1000,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "torch_dtype": "float32", "hidden_act": "silu",
    "rope_theta": 10000.0, "tie_word_embeddings": True,
}  # fmt: skip
"""8 layers of 63 M weights: 2.01 GB in float32."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model that has no weights yet."""
    directory = tmp_path / "large"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return directory


def devices_of(tmp_path: Path, **nodes: str) -> Path:
    """Return a file with nodes, by what each has."""
    path = tmp_path / "devices.toml"
    path.write_text("\n".join(f"[nodes.{name}]\n{has}" for name, has in nodes.items()))
    return path


def refusal(model: Path, devices: Devices, strategy: str = "uniform", dtype: str | None = None) -> str:
    """Return what is said of a plan; empty: it fits."""
    description = outline_of(model).description(dtype)
    workload = Workload()
    planned = replace(description, plan=plan_for(description, strategy, devices, workload))
    try:
        check_fits(planned, strategy, devices, workload)
    except ResourceError as error:
        return str(error)
    return ""


def test_a_node_without_room_on_its_disk_is_named_with_what_it_needs(model: Path, tmp_path: Path) -> None:
    """Smaller weights and one node more would fit, and so they are said; each of them does."""
    path = devices_of(tmp_path, kitchen='disk-bytes = "0.7GB"', attic='disk-bytes = "0.7GB"')
    said = refusal(model, read_devices(path))
    assert re.search(r"kitchen needs 1\.01 GB of disk and has 0\.70 GB; attic needs", said), said
    assert said.endswith("--weights-dtype bfloat16, or one more node like kitchen"), said
    assert refusal(model, read_devices(path), dtype="bfloat16") == ""
    three = devices_of(tmp_path, **dict.fromkeys(("kitchen", "attic", "cellar"), 'disk-bytes = "0.7GB"'))
    assert refusal(model, read_devices(three)) == ""


def test_a_budget_that_is_too_small_is_told_with_the_least_that_works(model: Path, tmp_path: Path) -> None:
    """And that works."""
    said = refusal(model, read_devices(devices_of(tmp_path, kitchen='memory-budget-bytes = "200MB"', attic="")))
    (needed,) = re.findall(r"kitchen needs --memory-budget (\d\.\d\d)GB at least and has 0\.20GB", said)
    enough = devices_of(tmp_path, kitchen=f'memory-budget-bytes = "{needed}GB"', attic="")
    assert refusal(model, read_devices(enough)) == ""
    less = devices_of(tmp_path, kitchen=f'memory-budget-bytes = "{float(needed) - 0.01:.2f}GB"', attic="")
    assert f"needs --memory-budget {needed}GB" in refusal(model, read_devices(less))


def test_a_strategy_that_would_fit_is_said_where_the_wanted_one_does_not(model: Path, tmp_path: Path) -> None:
    """A small device beside a large one holds less."""
    small = 'disk-bytes = "0.5GB"\nmemory-bytes = "1GB"'
    path = devices_of(tmp_path, kitchen=small, attic='memory-bytes = "8GB"')
    assert "--split-strategy m" in refusal(model, read_devices(path), "uniform")
    assert refusal(model, read_devices(path), "memory") == ""


def test_where_nothing_helps_only_what_is_lacking_is_said(model: Path, tmp_path: Path) -> None:
    """A hundredth of the room: neither eight nodes nor half the bytes."""
    said = refusal(model, read_devices(devices_of(tmp_path, kitchen='disk-bytes = "20MB"')))
    assert said.endswith("GB of disk and has 0.02 GB. Give them that"), said


def test_what_fits_is_no_failure(model: Path, tmp_path: Path) -> None:
    """Nothing is said, and the verb ends as it always did."""
    devices = devices_of(tmp_path, kitchen="", attic="")
    assert refusal(model, read_devices(devices)) == ""
    done = CliRunner().invoke(program(), ["plan", str(model), "--devices", str(devices), "--json"])
    assert done.exit_code == EXIT_OK


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_the_verb_shows_the_plan_and_fails(model: Path, tmp_path: Path, output: list[str]) -> None:
    """What was asked for is there to look at; a script sees by the exit code that it is not to go on."""
    devices = devices_of(tmp_path, kitchen='disk-bytes = "0.7GB"')
    done = CliRunner().invoke(program(), ["plan", str(model), "--devices", str(devices), *output])
    assert isinstance(done.exception, ResourceError)
    assert ("tokens/s" in done.stdout) if not output else not json.loads(done.stdout)["devices"][0]["fits"]

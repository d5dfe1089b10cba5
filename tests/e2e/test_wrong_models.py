"""What happens to a model that cannot be used? One line that says which file and why, exit code 3, no slices.

Does not cover: every way in which a file can be damaged (tests/unit/test_checkpoints_hostile.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.errors import EXIT_INPUT, EXIT_MODEL
from tests.e2e.conftest import RunHere
from tests.support.cli import Shell
from tests.support.safetensors_files import read_tensors, write_tensors
from tests.support.tiny_checkpoint import change_config, write_tiny_checkpoint

Damage = Callable[[Path], object]


class Payload:
    """Pickled, it becomes a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)


def cut_short(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no config.json": (lambda model: (model / "config.json").unlink(), "config.json"),
    "config.json is no JSON": (lambda model: cut_short(model / "config.json"), "config.json"),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "tokenizer.json"),
    "tokenizer cut short": (lambda model: cut_short(model / "tokenizer.json"), "tokenizer.json"),
    "missing shard": (lambda model: (model / "model-00002-of-00002.safetensors").unlink(), "model-00002-of-00002"),
    "truncated shard": (lambda model: cut_short(model / "model-00001-of-00002.safetensors"), "model-00001-of-00002"),
    "unsupported architecture": (
        lambda model: change_config(model, architectures=["FalconForCausalLM"], model_type="falcon"), "alcon",
    ),
    "unsupported rope type": (
        lambda model: change_config(model, rope_scaling={"rope_type": "longrope", "factor": 2.0}), "longrope",
    ),
    "a key that changes the maths": (lambda model: change_config(model, logit_softcap=30.0), "logit_softcap"),
    "a dimension that is no number": (lambda model: change_config(model, hidden_size="64"), "hidden_size"),
    "a config of another size": (lambda model: change_config(model, intermediate_size=256), "mlp"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(here: RunHere, tmp_path: Path, damage: str) -> None:
    """The line names the file, the key or the value; no slice is made of it."""
    model = write_tiny_checkpoint(tmp_path / "model", layout="sharded")
    change, named = DAMAGES[damage]
    change(model)
    finished = here("coordinator-cli", "generate", "--model", str(model), "--prompt", "hi")
    assert named in finished.error_line("coordinator-cli", EXIT_MODEL)
    assert finished.out == ""
    assert not (model / "split").exists()


def test_a_weight_that_is_no_number_is_the_model_s_fault_and_not_a_node_s(here: RunHere, tmp_path: Path) -> None:
    """Slicing reads everything anyway: file and tensor are named, with the exit code of models."""
    model = write_tiny_checkpoint(tmp_path / "model")
    state = read_tensors(model / "model.safetensors")
    state["model.norm.weight"][5] = np.float32(np.nan)
    write_tensors(state, model / "model.safetensors")
    finished = here("coordinator-cli", "generate", "--model", str(model), "--prompt", "hi")
    line = finished.error_line("coordinator-cli", EXIT_MODEL)
    assert "model.safetensors: 'model.norm.weight' holds nan in row 5" in line
    assert not list((model / "split").rglob("*.safetensors"))


def test_a_place_without_a_model_is_named(shell: Shell, tmp_path: Path) -> None:
    """A directory that is not there, and one that is empty; the words of both verbs are real processes'."""
    generate = shell.start("coordinator-cli", "generate", "--model", "no/such place", "--prompt", "hi")
    split = shell.run("coordinator-cli", "split", "--model", str(tmp_path))
    assert "no/such place" in generate.finish().error_line("coordinator-cli", EXIT_MODEL)
    assert str(tmp_path) in split.error_line("coordinator-cli", EXIT_MODEL)
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_that_executes_code_is_refused_and_not_executed(shell: Shell, tmp_path: Path) -> None:
    """The mark that its code would leave does not appear."""
    torch = pytest.importorskip("torch")
    model = write_tiny_checkpoint(tmp_path / "model", layout="bin")
    shell.allow_torch()
    mark = tmp_path / "executed"
    torch.save({"model.norm.weight": Payload(mark)}, model / "pytorch_model.bin")
    finished = shell.run("coordinator-cli", "generate", "--model", str(model), "--prompt", "hi")
    line = finished.error_line("coordinator-cli", EXIT_MODEL)
    assert "pytorch_model.bin" in line
    assert "code" in line
    assert not mark.exists()
    torch.load(model / "pytorch_model.bin", weights_only=False)  # it would have
    assert mark.exists()


def test_an_empty_prompt_needs_a_first_token(here: RunHere, tmp_path: Path) -> None:
    """A model without BOS cannot start from nothing, and the line says what to give."""
    model = write_tiny_checkpoint(tmp_path / "model")
    change_config(model, bos_token_id=None)
    settings = model / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"bos_token": "<s>",', ""))
    finished = here("coordinator-cli", "generate", "--model", str(model), "--prompt", "")
    assert "--prompt" in finished.error_line("coordinator-cli", EXIT_INPUT)

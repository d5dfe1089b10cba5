"""Does a file that describes devices mean what a person wrote, and is nonsense in it told?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import InputError, PromptTooLong
from coordinator.cli.plan import plan as plan_as_typed
from coordinator.planning.devices import DEFAULTS, read_devices
from tests.support.tiny_checkpoint import write_tiny_checkpoint

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def written(tmp_path: Path, text: str) -> Path:
    """Return a file with this text."""
    path = tmp_path / "devices.toml"
    path.write_text(text)
    return path


def test_what_is_written_counts_and_the_rest_is_a_small_pc(tmp_path: Path) -> None:
    """Sizes as text or numbers; a budget is what may be used."""
    found = read_devices(written(tmp_path, '''
        [coordinator]
        memory-bytes-per-second = "20GB"
        [nodes.kitchen]
        memory-bytes = 4000000000
        link-bits-per-second = "100M"
        round-trip-milliseconds = 4.5
        [nodes.attic]
        memory-budget-bytes = "2GB"
    '''))  # fmt: skip
    kitchen, attic = found.nodes
    assert (kitchen.name, kitchen.memory_bytes, kitchen.link_rate) == ("kitchen", 4_000_000_000, 12.5e6)
    assert (kitchen.round_trip_seconds, kitchen.has_budget) == (0.0045, False)
    assert (attic.memory_bytes, attic.has_budget) == (2_000_000_000, True)
    assert attic.disk_rate == DEFAULTS["disk-bytes-per-second"]
    assert found.own.memory_rate == 20e9


def test_the_sample_can_be_read() -> None:
    """As an operator copies it."""
    assert len(read_devices(DEPLOY / "config" / "devices.toml").nodes) >= 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a table"), ("x = 1", "needs a table"), ("[nodes]", "needs a table"), ("[nodes.a", "is no TOML"),
        ("[nodes.a]\nram = 1", "there are: memory-bytes"), ("[nodes.a]\nmemory-bytes = 0", "above 0"),
        ("[nodes.a]\nmemory-bytes = true", "above 0"), ("[nodes.a]\nmemory-bytes = -5", "above 0"),
        ('[nodes.a]\nmemory-bytes = "much"', "write bytes or a size"), ("[nodes.a]\nmemory-bytes = nan", "above 0"),
        ("[nodes.A]\nmemory-bytes = 1", "'A'"), ("[nodes]\na = 5", "is no table"),
    ],
)  # fmt: skip
def test_nonsense_is_one_line_that_says_what_to_write(tmp_path: Path, text: str, said: str) -> None:
    """Never a traceback, never a default in its place."""
    with pytest.raises(InputError, match=said):
        read_devices(written(tmp_path, text))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(InputError, match="cannot read"):
        read_devices(tmp_path / "none.toml")


def test_an_answer_beyond_the_models_context_is_not_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused with the context, as the answer itself would be; what just fits is not."""
    model = write_tiny_checkpoint(tmp_path / "tiny")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    devices = DEPLOY / "config" / "devices.toml"

    def planned(prompt_tokens: int) -> None:
        plan_as_typed(
            model, devices=devices, split_strategy="uniform", weights_dtype=None, wire_dtype="float32",
            prompt_tokens=prompt_tokens, length=33, state_dir=None, json_output=True,
        )  # fmt: skip

    planned(32)
    assert "plan" in capsys.readouterr().out
    with pytest.raises(PromptTooLong, match="context of 64"):
        planned(33)

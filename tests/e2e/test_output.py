"""What does a person or a program read: text on stdout, a report on stderr, one JSON document, help that teaches?

Does not cover: whether the tokens are right (the tests that compare with transformers).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from coordinator.cli.answer_screen import NOT_OBEYED
from tests.e2e.conftest import RunHere
from tests.support.cli import PROGRAMS, Shell
from tests.support.terminal_screen import Terminal
from tests.support.tiny_checkpoint import BOS_ID, write_tiny_checkpoint

SEED_OPTIONS = (
    "--prompt", "--length", "--prefix", "--use-gpu", "--split-bin", "--save-dir", "--split-strategy", "--seed",
    "--master-ip", "--master-port", "--temperature", "--k", "--p", "--memory-window",
)  # fmt: skip
HELP_SECONDS = 0.8
"""Of processor time, half of which it takes: torch alone takes more than a second, on a busy machine too."""
GREEDY = ["--world-size", "2", "--length", "12", "--temperature", "0", "--ignore-eos"]


def test_text_goes_to_stdout_and_the_report_to_stderr(shell: Shell, sliced_once: Path) -> None:
    """A real run, both spellings of an option, every process's memory in the report, nothing left behind."""
    command = ["generate", "--model", str(sliced_once), *GREEDY, "--prompt", "hi"]
    as_document = shell.start("coordinator-cli", *command, "--json")
    finished = shell.run("coordinator-cli", *command, "--memory_window", "2")
    document = json.loads(as_document.finish().out)
    assert finished.code == 0
    assert finished.out == document["text"] + "\n"
    for word in (
        "12 generated",
        "weights checked in",
        "2 nodes",
        "first token after",
        "start-up",
        "tokens/s",
        "s in all",
        "peak memory",
        "coordinator",
        "node1",
    ):
        assert word in finished.err
    assert shell.leftovers() == []


def test_the_json_document_has_the_documented_keys(here: RunHere, sliced_once: Path) -> None:
    """One line on stdout, nothing on stderr; an empty prompt starts from BOS; every process has its memory."""
    finished = here("coordinator-cli", "generate", "--model", str(sliced_once), *GREEDY, "--prompt", "", "--json")
    assert (finished.code, finished.err, finished.out.count("\n")) == (0, "", 1)
    document = json.loads(finished.out)
    assert set(document) == {"prompt_token_ids", "token_ids", "text", "finish_reason", "timings", "memory"}
    assert document["prompt_token_ids"] == [BOS_ID]
    assert len(document["token_ids"]) == 12
    assert document["finish_reason"] == "length"
    assert set(document["timings"]) == {
        "startup_seconds", "ttft_seconds", "seconds_per_token", "tokens_per_second", "checksum_seconds",
        "critical_path",
    }  # fmt: skip
    assert document["timings"]["checksum_seconds"] > 0
    assert document["timings"]["ttft_seconds"] > 0
    assert len(document["timings"]["seconds_per_token"]) == 11
    assert set(document["memory"]) == {"coordinator", "node0", "node1"}
    assert len({values["process_id"] for values in document["memory"].values()}) == 3
    assert all(values["peak_rss_bytes"] > 1 << 20 for values in document["memory"].values())
    assert {"window_bytes", "kv_bytes", "read_bytes", "cached_read_bytes", "checksum_nanoseconds"} <= set(
        document["memory"]["node0"]
    )


def test_on_a_terminal_a_person_sees_what_is_waited_for_and_then_only_the_answer(
    shell: Shell, sliced_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of waiting are gone from the screen; with --json, on the same terminal, there are none."""
    monkeypatch.setenv("TERM", "xterm")
    command = [str(PROGRAMS / "coordinator-cli"), "generate", "--model", str(sliced_once), *GREEDY, "--prompt", "hi"]
    with Terminal(columns=200) as terminal, Terminal(columns=200) as plain:
        seen = subprocess.Popen(command, stdout=terminal.descriptor, stderr=terminal.descriptor)
        document = subprocess.run(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=plain.descriptor, check=True, timeout=60
        )
        assert seen.wait(60) == 0
        text: str = json.loads(document.stdout)["text"].translate(NOT_OBEYED)
        assert terminal.shown()[: text.count("\n") + 1] == [line.rstrip() for line in text.split("\n")]
        for word in ("starting", "opening the model", "reading the prompt: 0 of "):
            assert word in terminal.written()
            assert not any(word in line for line in terminal.shown())
            assert word not in plain.written()
        assert plain.shown() == []


def test_prefix_and_chat_shape_the_prompt(here: RunHere, sliced_once: Path, serving: str) -> None:
    """--prefix comes before --prompt; --chat applies the template; without it the text is taken as it stands."""

    def prompt_ids(*arguments: str) -> list[int]:
        finished = here(
            "coordinator-cli", "generate", "--model", str(sliced_once), "--nodes", serving, "--length", "1", "--json",
            *arguments,
        )  # fmt: skip
        ids: list[int] = json.loads(finished.out)["prompt_token_ids"]
        return ids

    plain = prompt_ids("--prompt", "one 1")
    assert prompt_ids("--prefix", "one ", "--prompt", "1") == plain
    chat = prompt_ids("--prompt", "one 1", "--chat")
    assert chat[0] == BOS_ID
    assert len(chat) > len(plain)


def test_a_model_path_may_have_spaces_and_letters_of_any_script(here: RunHere, tmp_path: Path) -> None:
    """And it may be a link to a directory; slices go where it leads."""
    model = write_tiny_checkpoint(tmp_path / "mein modèl 模型 #1")
    link = tmp_path / "link"
    link.symlink_to(model)
    answers = [
        here("coordinator-cli", "generate", "--model", str(path), *GREEDY, "--prompt", "hi") for path in (link, model)
    ]
    assert [answer.code for answer in answers] == [0, 0]
    assert answers[0].out == answers[1].out != ""
    assert (model / "split" / "node1" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["coordinator-cli", "generate", "--help"], (*SEED_OPTIONS, "--world-size", "--nodes", "--json", "Example")),
        (["shardnode", "--help"], ("--slice-dir", "--listen", "--memory-window", "--use-gpu", "Example")),
    ],
)
def test_help_teaches_every_option_at_once(arguments: list[str], words: tuple[str, ...]) -> None:
    """Each option has its sentence, there is an example, and nobody waits for torch to be imported."""
    seconds = []
    for _ in range(10):  # the machine may be busy with something else
        before = os.times()
        done = subprocess.run([PROGRAMS / arguments[0], *arguments[1:]], capture_output=True, text=True, check=False)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert (done.returncode, done.stderr) == (0, "")
        assert [word for word in words if word not in done.stdout] == []
        if seconds[-1] < HELP_SECONDS:
            break
    assert min(seconds) < HELP_SECONDS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("generate", "split", "--help")),
        (["--help"], ("generate", "split", "Exit codes", "130")),
        (["split", "--help"], ("--model", "--save-dir", "--split-bin", "Example")),
    ],
)
def test_help_names_the_verbs_and_the_options_of_each(
    here: RunHere, arguments: list[str], words: tuple[str, ...]
) -> None:
    """Also where nothing is typed; that it comes at once is tried with the verb that imports most."""
    done = here("coordinator-cli", *arguments)
    assert (done.code, done.err) == (0, "")
    assert [word for word in words if word not in done.out] == []

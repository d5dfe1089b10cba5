"""What happens to options that cannot be right? One line that names the option, exit code 2, nothing started for long.

Does not cover: options that depend on what is on disk (test_wrong_models.py, test_wrong_slices.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_RESOURCE
from tests.e2e.conftest import RunHere
from tests.support.cli import Name, Shell

GENERATE = [
    ("--k", "-1"),
    ("--k", "two"),
    ("--p", "0"),
    ("--p", "2"),
    ("--p", "nan"),
    ("--temperature", "-1"),
    ("--temperature", "nan"),
    ("--temperature", "inf"),
    ("--seed", "99999999999999999999999"),
    ("--length", "0"),
    ("--length", "-3"),
    ("--memory-window", "1"),
    ("--memory-window", "-2"),
    ("--world-size", "0"),
    ("--world-size", "100000"),
    ("--split-strategy", "fair"),
    ("--split-strategy", "ratio:1,2,3"),
    ("--split-strategy", "ratio:1,nan"),
    ("--split-strategy", "ratio:1,-1"),
    ("--split-strategy", "ratio:"),
    ("--weights-dtype", "int3"),
    ("--kv-budget-bytes", "0"),
    ("--kv-budget-bytes", "99999999999999999999999"),
    ("--metrics-port", "70000"),
    ("--metrics-port", "-1"),
    ("--log-level", "loud"),
    ("--nodes", ""),
]
SHARDNODE = [
    ("--memory-window", "1"),
    ("--kv-budget-bytes", "0"),
    ("--threads", "-1"),
    ("--metrics-port", "65536"),
    ("--read-timeout-seconds", "nan"),
    ("--read-timeout-seconds", "inf"),
    ("--log-level", "loud"),
]


@pytest.mark.parametrize(("option", "value"), GENERATE)
def test_generate_refuses_a_value_and_names_its_option(
    here: RunHere, sliced_once: Path, option: str, value: str
) -> None:
    """The line says which option; nothing goes to stdout."""
    finished = here(
        "coordinator-cli", "generate", "--model", str(sliced_once), "--world-size", "2", "--prompt", "hi", option, value
    )  # fmt: skip
    line = finished.error_line("coordinator-cli", EXIT_INPUT)
    assert option in line
    assert finished.out == ""


@pytest.mark.parametrize(("option", "value"), SHARDNODE)
def test_shardnode_refuses_a_value_and_names_its_option(
    here: RunHere, sliced_once: Path, option: str, value: str
) -> None:
    """The daemon's options are checked as the coordinator's are."""
    finished = here("shardnode", "--slice-dir", str(sliced_once / "split" / "node0"), option, value)
    assert option in finished.error_line("shardnode", EXIT_INPUT)


def test_both_spellings_of_an_option_are_the_same_option(here: RunHere, sliced_once: Path) -> None:
    """`--memory_window` is `--memory-window`, and `--split_bin` is `--split-bin`."""
    lines = [
        here("coordinator-cli", "generate", "--model", str(sliced_once), spelling, "1").error_line(
            "coordinator-cli", EXIT_INPUT
        )
        for spelling in ("--memory-window", "--memory_window")
    ]
    assert lines[0] == lines[1]
    for spelling in ("--split-bin", "--split_bin"):
        finished = here("coordinator-cli", "split", "--model", str(sliced_once / "nowhere"), spelling)
        assert "nowhere" in finished.error_line("coordinator-cli", 3)


@pytest.mark.parametrize(
    ("program", "arguments", "named"),
    [
        ("coordinator-cli", ["generate", "--model", "m", "--lenght", "3"], "--lenght"),
        ("coordinator-cli", ["generate"], "--model"),
        ("coordinator-cli", ["genrate"], "genrate"),
        ("coordinator-cli", ["split", "--model", "m", "word"], "word"),
        ("shardnode", [], "--slice-dir"),
        ("shardnode", ["--slice-dir", "s", "--prompt", "x"], "--prompt"),
    ],
)
def test_an_unknown_or_missing_option_is_named(here: RunHere, program: Name, arguments: list[str], named: str) -> None:
    """The line also says where the options are explained."""
    line = here(program, *arguments).error_line(program, EXIT_INPUT)
    assert named in line
    assert "--help" in line


def test_a_mistyped_option_ends_a_real_process_cleanly(shell: Shell, sliced_once: Path) -> None:
    """What the tests above do inside this process holds for the program that pip installed."""
    coordinator = shell.start("coordinator-cli", "generate", "--model", str(sliced_once), "--k", "-1")
    assert "--nope" in shell.run("shardnode", "--nope").error_line("shardnode", EXIT_INPUT)
    assert "--k" in coordinator.finish().error_line("coordinator-cli", EXIT_INPUT)
    assert shell.leftovers() == []


def test_a_prompt_that_is_no_text_is_refused(shell: Shell, sliced_once: Path) -> None:
    """Bytes that are not UTF-8 reach a program as half characters, which no tokenizer knows."""
    finished = shell.run("coordinator-cli", "generate", "--model", str(sliced_once), "--prompt", b"\xff\xfe")
    assert "prompt" in finished.error_line("coordinator-cli", EXIT_INPUT)


def test_a_prompt_longer_than_the_context_is_refused(here: RunHere, sliced_once: Path) -> None:
    """The line has the three numbers: the prompt's, the answer's, the model's."""
    arguments = ["generate", "--model", str(sliced_once), "--world-size", "2", "--length", "7"]
    line = here("coordinator-cli", *arguments, "--prompt", "1" * 40_000).error_line("coordinator-cli", EXIT_INPUT)
    assert all(number in line for number in ("40000", "7", "32768"))


def test_use_gpu_without_a_gpu_is_refused(here: RunHere, sliced_once: Path) -> None:
    """Both programs say that torch finds none."""
    if pytest.importorskip("torch").cuda.is_available():
        pytest.skip("this machine has a GPU that torch can use")
    node = here("shardnode", "--slice-dir", str(sliced_once / "split" / "node0"), "--use-gpu")
    assert "--use-gpu" in node.error_line("shardnode", EXIT_INPUT)
    for spelling in ("--use-gpu", "--use_gpu"):
        coordinator = here("coordinator-cli", "generate", "--model", str(sliced_once), spelling)
        assert "--use-gpu" in coordinator.error_line("coordinator-cli", EXIT_INPUT)


@pytest.mark.parametrize(
    "nodes",
    [
        "nowhere",
        "localhost:port",
        "127.0.0.1:70000",
        "::1:50051",
        "127.0.0.1:²",
        "127.0.0.1:1,127.0.0.1:1",
        "[::1:50051",
        "[::1]",
        "[1.2.3.4]:50051",
    ],
)
def test_nodes_that_are_no_addresses_are_refused(here: RunHere, sliced_once: Path, nodes: str) -> None:
    """The line repeats what is wrong with the list, before anything is connected."""
    finished = here("coordinator-cli", "generate", "--model", str(sliced_once), "--nodes", nodes)
    assert finished.error_line("coordinator-cli", EXIT_INPUT)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("coordinator-cli", ["--nodes", "192.0.2.1:50051"]),
        ("coordinator-cli", ["--master-port", "29500", "--master-ip", "0.0.0.0"]),
        ("shardnode", ["--listen", "0.0.0.0:0"]),
        ("shardnode", ["--listen", "[::]:0"]),
    ],
)
def test_other_devices_need_insecure(here: RunHere, sliced_once: Path, program: Name, arguments: list[str]) -> None:
    """Without TLS nothing leaves or enters this machine unless the user says so."""
    start = ["generate", "--model", str(sliced_once)]
    if program == "shardnode":
        start = ["--slice-dir", str(sliced_once / "split" / "node0")]
    assert "TLS" in here(program, *start, *arguments).error_line(program, EXIT_INPUT)


@pytest.fixture
def taken_port() -> Iterator[str]:
    """Return a port of this machine on which somebody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


def test_a_metrics_port_in_use_is_named(here: RunHere, sliced_once: Path, taken_port: str) -> None:
    """Both programs serve metrics; nobody shares a port."""
    finished = here("coordinator-cli", "generate", "--model", str(sliced_once), "--metrics-port", taken_port)
    assert taken_port in finished.error_line("coordinator-cli", EXIT_RESOURCE)
    node = here("shardnode", "--slice-dir", str(sliced_once / "split" / "node0"), "--metrics-port", taken_port)
    assert taken_port in node.error_line("shardnode", EXIT_RESOURCE)


def test_a_grpc_port_in_use_is_named(shell: Shell, sliced_once: Path, taken_port: str) -> None:
    """In processes of their own, because gRPC's core writes to stderr as it was told at the process's start."""
    running = [
        shell.start("coordinator-cli", "generate", "--model", str(sliced_once), "--master_port", taken_port),
        shell.start("shardnode", "--slice-dir", str(sliced_once / "split" / "node0"), "--listen",
                    f"127.0.0.1:{taken_port}"),
    ]  # fmt: skip
    for program, started in zip(("coordinator-cli", "shardnode"), running, strict=True):
        assert taken_port in started.finish().error_line(program, EXIT_RESOURCE)


def test_a_socket_path_that_cannot_be_is_refused(here: RunHere, sliced_once: Path, tmp_path: Path) -> None:
    """A directory that is not there, and a name longer than a Unix socket may have."""
    node = ["--slice-dir", str(sliced_once / "split" / "node0")]
    for path in (tmp_path / "nowhere" / "node.sock", tmp_path / ("x" * 120)):
        assert str(path) in here("shardnode", *node, "--listen", f"unix:{path}").error_line("shardnode", EXIT_INPUT)

"""Does every program end with one line and its documented exit code, whatever ended it?

Covers: common/program/command_line.py with a small program of its own. Does not cover: options of ours (tests/e2e).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from common.errors import (
    EXIT_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    DiskFull,
    ShardmeshError,
    all_error_classes,
)  # fmt: skip
from common.program.command_line import CONTEXT_SETTINGS, run_program

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str,
    raising: BaseException | None = None,
) -> tuple[object, str, str]:  # fmt: skip
    """Run a program with an option, a choice and an argument; return exit code, stdout and stderr."""
    app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)

    @app.command()
    def work(
        text: str = "none",
        two_words: Annotated[bool, typer.Option("--two-words")] = False,
        number: Annotated[int, typer.Option(min=1)] = 1,
    ) -> None:
        """Say what was asked."""
        if raising is not None:
            raise raising
        print(text, two_words, number)

    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_program(app, "program")
    return caught.value.code, *capsys.readouterr()


def test_a_program_that_succeeds_exits_with_0_and_says_nothing_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stdout is the answer's."""
    assert ended(monkeypatch, capsys) == (0, "none False 1\n", "")


def test_underscores_in_options_are_dashes_and_in_values_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seed's spelling --split_bin is --split-bin; what a person writes as a value is not touched."""
    for option in ("--two-words", "--two_words"):
        assert ended(monkeypatch, capsys, option, "--text", "a_b --c_d") == (0, "a_b --c_d True 1\n", "")


@pytest.mark.parametrize("kind", all_error_classes(), ids=lambda kind: kind.__name__)
def test_each_error_ends_in_its_exit_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[ShardmeshError]
) -> None:
    """The program's name and the message, no traceback; nothing on stdout."""
    code, out, error = ended(monkeypatch, capsys, raising=kind("the disk\n is full; free some"))
    assert (code, out, error) == (kind.exit_code, "", "program: the disk is full; free some\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--no-such"], "--no-such"), (["--number", "x"], "--number"), (["--number", "0"], "--number"),
     (["extra"], "extra"), (["--text"], "--text")],
)  # fmt: skip
def test_a_flag_that_is_wrong_is_one_line_with_where_help_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Unknown, of another type, out of range, too many, without its value."""
    code, out, error = ended(monkeypatch, capsys, *arguments)
    assert (code, out) == (EXIT_INPUT, "")
    assert error.startswith("program: ")
    assert words in error
    assert error.endswith("(--help explains)\n")
    assert error.count("\n") == 1


def test_help_goes_to_stdout_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-h is --help."""
    for option in ("-h", "--help"):
        code, out, error = ended(monkeypatch, capsys, option)
        assert (code, error) == (0, "")
        assert "Say what was asked." in out


@pytest.mark.parametrize("raising", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupted_program_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raising: BaseException
) -> None:
    """130, as shells expect, and no traceback."""
    code, out, error = ended(monkeypatch, capsys, raising=raising)
    assert (code, out, error.strip()) == (EXIT_INTERRUPTED, "", "program: interrupted")


def test_a_bug_is_one_line_that_says_it_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exception's class and text, and how to see where."""
    code, out, error = ended(monkeypatch, capsys, raising=ValueError("two\nlines"))
    assert (code, out) == (EXIT_INTERNAL, "")
    assert error.startswith("program: internal error: ValueError: two lines; this is a bug")
    assert "--log-level debug" in error
    assert error.count("\n") == 1


def test_control_characters_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file's name may hold an escape sequence; it is shown, not obeyed."""
    _, _, error = ended(monkeypatch, capsys, raising=ValueError("\x1b[2Jname\x07"))
    assert "\x1b" not in error
    assert "\x07" not in error
    assert "[2Jname" in error


def test_an_exit_code_of_the_programs_own_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """typer.Exit is how a program chooses one."""
    assert ended(monkeypatch, capsys, raising=typer.Exit(7)) == (7, "", "")


LOUD = """
import typer
from common.program.command_line import CONTEXT_SETTINGS, run_program
app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS)

@app.command()
def work():
    for number in range(100_000):
        print("a line that nobody reads", number)

run_program(app, "loud")
"""


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`program | head -1` ends quietly, with 0 and an empty stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", LOUD], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line that nobody reads 0\n"
        process.stdout.close()
        error = process.stderr.read()
        assert (process.wait(timeout=20), error) == (0, b"")


def test_a_full_disk_behind_stdout_is_no_bug_of_ours() -> None:
    """`program > file` where no room is left: one line, and the exit code of a full disk."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", LOUD], cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, timeout=20, check=False
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        DiskFull.exit_code, b"loud: cannot write: No space left on device; make room\n"
    )  # fmt: skip


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_program_whose_streams_are_closed_does_its_work(closed: str) -> None:
    """As if they went nowhere: neither a traceback nor a code that is not documented."""
    program = LOUD.replace("run_program", "run_process")
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, program], cwd=REPOSITORY, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


LOST = """
import os, signal, threading, typer
from common.program.command_line import CONTEXT_SETTINGS, run_process
app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS)

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

@app.command()
def work():
    Swallows()
    threading.Event().wait(20)

run_process(app, "lost")
"""


def test_an_interrupt_that_python_swallows_comes_again() -> None:
    """Within an import, or while something is let go, nothing that is raised gets out; the person pressed Ctrl-C."""
    done = subprocess.run(
        [sys.executable, "-c", LOST], cwd=REPOSITORY, capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stderr) == (EXIT_INTERRUPTED, "lost: interrupted\n")

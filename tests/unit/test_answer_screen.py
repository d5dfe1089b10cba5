"""What does a person see while there is no text yet, while it comes, and when a note comes in the middle of it?

Covers: coordinator/cli/answer_screen.py on terminals (tests/support/terminal_screen.py), in pipes; the report's times.
Does not cover: which events come (test_answers.py), whole programs (tests/e2e/test_output.py).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from common.errors import NodeLost
from coordinator.answering.requests import Event, Failed, Finished, Notice, Reading, Started, Token
from coordinator.cli.answer_output import write_events, write_report
from coordinator.cli.answer_screen import AnswerScreen
from coordinator.engine.timings import Timings
from tests.support.terminal_screen import Terminal

SLOW = Notice(text="kitchen is slow")
STARTED = Started(model="m", prompt_token_ids=tuple(range(725)))
END = Finished(reason="length", text="", timings=Timings(ttft_seconds=0.5, seconds_per_token=[0.1]))
COLUMNS, ROWS = 40, 6
FILE = io.StringIO()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Return a small terminal."""
    monkeypatch.setenv("TERM", "xterm")
    with Terminal(columns=COLUMNS, rows=ROWS) as made:
        yield made


@contextmanager
def screen_on(terminal: Terminal, *, is_quiet: bool = False, file: str = "") -> Iterator[AnswerScreen]:
    """Return what shows an answer there. Args: file: stdout or stderr, if that is not the terminal but FILE."""
    FILE.seek(0)
    FILE.truncate()
    with (
        redirect_stdout(FILE if file == "stdout" else terminal.open()),
        redirect_stderr(FILE if file == "stderr" else terminal.open()),
        AnswerScreen(is_quiet=is_quiet) as screen,
    ):
        yield screen


def texts(*pieces: str) -> list[Event]:
    """Return a token for each piece."""
    return [Token(token_id=number, text=piece) for number, piece in enumerate(pieces)]


def shown(terminal: Terminal, events: Iterable[Event], file: str = "") -> list[list[str]]:
    """Return what is seen after each event, and at the end."""
    seen = []

    def watched() -> Iterator[Event]:
        for event in events:
            yield event
            seen.append(terminal.shown())

    with screen_on(terminal, file=file) as screen:
        write_events(watched(), screen)
    return [*seen, terminal.shown()]


def test_a_prompt_that_is_read_is_a_line_that_goes_when_there_is_text(terminal: Terminal) -> None:
    """It is replaced as more is read; a token whose text is not certain yet leaves it there."""
    events = [STARTED, *(Reading(read_count=count, prompt_count=725) for count in (64, 512)), *texts("", "Yes"), END]
    assert shown(terminal, events) == [
        ["reading the prompt: 0 of 725 tokens"], ["reading the prompt: 64 of 725 tokens"],
        ["reading the prompt: 512 of 725 tokens"], ["reading the prompt: 512 of 725 tokens"], ["Yes"], ["Yes"],
    ]  # fmt: skip
    assert terminal.written().endswith("Yes\r\n")


def test_an_answer_that_fails_before_its_first_text_leaves_a_clean_line(terminal: Terminal) -> None:
    """The error's line is the first on the screen."""
    with pytest.raises(NodeLost), screen_on(terminal) as screen:
        write_events([STARTED, Failed(error=NodeLost("kitchen is gone"))], screen)
    assert terminal.shown() == []


def test_what_is_waited_for_is_never_longer_than_a_line(terminal: Terminal) -> None:
    """A second line could not be taken back."""
    with screen_on(terminal) as screen:
        screen.wait("x" * 300)
        assert terminal.shown() == ["x" * (COLUMNS - 1)]
    assert terminal.shown() == []


@pytest.mark.parametrize(
    "line",
    [
        "The sky", "x" * (COLUMNS - 1), "x" * COLUMNS, "word " * 20, "one\ttwo", "\u5929\u7a7a" * 15,
        "x" + "\u5929\u7a7a" * 15,
    ],
    ids=["short", "nearly full", "full", "several rows", "tab", "wide", "wide over the edge"],
)  # fmt: skip
def test_a_note_stands_above_the_line_that_it_comes_in(terminal: Terminal, line: str) -> None:
    """However long that is by then: the text goes on as if nothing had been said."""
    events = [STARTED, *texts("First line\n", line), SLOW, *texts(" is blue.\nLast"), END]
    with Terminal(columns=COLUMNS, rows=ROWS) as other:
        other.open().write(f"First line\nnote: kitchen is slow\n{line} is blue.\nLast\n")
        other._opened.close()
        assert shown(terminal, events)[-1] == other.shown()


@pytest.mark.parametrize("before", [[], texts("A line\n"), texts("")], ids=["nothing", "a whole line", "no text yet"])
def test_a_note_between_lines_is_a_line(terminal: Terminal, before: list[Event]) -> None:
    """And what is waited for is shown again below it."""
    seen = shown(terminal, [STARTED, *before, SLOW, *texts("Text"), END])
    first = ["A line"] if before and terminal.written().startswith("A") else seen[-1][:-2]
    assert seen[-1] == [*first, "note: kitchen is slow", "Text"]
    if not any(first):
        assert seen[len(before) + 1] == ["note: kitchen is slow", "reading the prompt: 0 of 725 tokens"]


def test_a_note_waits_for_the_end_of_a_line_that_is_longer_than_the_screen(terminal: Terminal) -> None:
    """Its beginning cannot be written over any more."""
    long = "word " * 60
    seen = shown(terminal, [STARTED, *texts(long), SLOW, *texts("end.\nNext"), END])
    assert "note: kitchen is slow" in seen[-1]
    assert "".join(seen[-1]).replace(" ", "") == (long + "end.note: kitchen is slowNext").replace(" ", "")


def test_in_pipes_there_is_text_and_notes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No word of waiting, no control character; a note is a line of stderr, at once."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with AnswerScreen(is_quiet=False) as screen:
        screen.wait("starting")
        write_events(
            [STARTED, Reading(read_count=1, prompt_count=9), *texts("The sky"), SLOW, *texts(" is"), END], screen
        )
    assert (out.getvalue(), err.getvalue()) == ("The sky is\n", "note: kitchen is slow\n")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_where_text_and_notes_go_to_different_places_neither_disturbs_the_other(
    terminal: Terminal, stream: str
) -> None:
    """One of them is a file."""
    seen = shown(terminal, [STARTED, *texts("The sky"), SLOW, *texts(" is"), END], stream)[-1]
    written = FILE.getvalue().splitlines()
    text, note = (seen, written) if stream == "stderr" else (written, seen)
    assert (text, note) == (["The sky is"], ["note: kitchen is slow"])


def test_who_wants_a_document_sees_no_text_and_no_waiting(terminal: Terminal) -> None:
    """Only the document, which is written later, and notes."""
    with screen_on(terminal, is_quiet=True) as screen:
        screen.wait("starting")
        answer = write_events([STARTED, *texts("The sky"), SLOW, END], screen)
    assert terminal.shown() == ["note: kitchen is slow"]
    assert answer.text == "The sky"


def test_a_dumb_terminal_gets_what_a_pipe_gets(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would show control characters as letters."""
    monkeypatch.setenv("TERM", "dumb")
    assert shown(terminal, [STARTED, *texts("The sky\n"), SLOW, *texts("is"), END])[-1] == [
        "The sky", "note: kitchen is slow", "is",
    ]  # fmt: skip
    assert "\x1b" not in terminal.written()


def test_the_report_counts_from_the_start_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Start-up, prompt and tokens apart: a person waits for all of them."""
    times = iter([10.0, 17.0])
    monkeypatch.setattr("coordinator.cli.answer_output.seconds_since_start", lambda: next(times))
    end = Finished(reason="length", text="", timings=Timings(ttft_seconds=3.5, seconds_per_token=[2.0, 2.0]))
    answer = write_events([STARTED, *texts("a", "b", "c"), end], AnswerScreen(is_quiet=True))
    write_report(answer)
    assert "first token after 10.00 s (start-up 6.50 s, prompt 3.50 s), then 0.5 tokens/s; 17.00 s in all" in " ".join(
        capsys.readouterr().err.split()
    )

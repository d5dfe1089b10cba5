"""Can what a peer, a file or a flag says break a table, or colour, move or hide anything on the screen?

Covers: all that coordinator/cli prints, common/wording.py. Does not cover: how screens read (test_screens.py).
"""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Callable

import pytest
from rich.console import Console

from common.program.logs import _OneLine
from common.wording import counted, plain
from coordinator.cli import progress
from coordinator.cli.answer_screen import AnswerScreen
from coordinator.cli.doctor import show_findings
from coordinator.cli.documents import show_document
from coordinator.cli.models import show_models
from coordinator.cli.nodes import document_of, show_nodes
from coordinator.cli.plan_table import show_plan
from coordinator.cli.status_table import show_status
from coordinator.cli.tables import Column, Trouble, show_table
from coordinator.cli.telling import say, tell
from coordinator.cli.top_screen import Standing, show_top
from tests.support import screens
from tests.support.observed_facts import overview
from tests.support.source_files import name_of, python_files, tree_of

HOSTILE = {
    "a closing tag": "[/]",
    "a colour": "[bold red on white]ready[/bold red on white]",
    "a link": "[link=http://example.org]x[/link]",
    "an emoji's name": ":skull:",
    "an escape sequence": "\x1b[2J\x1b[31mgone\x1b]0;title\x07",
    "one of eight bits": "\x9b2Jgone",
    "a carriage return": "kitchen\rattic: alive",
    "lines": "kitchen\nattic  alive\x0b\x0c\x85\u2028\u2029more",
    "text turned round": "\u202egnp.exe\u2066\u200f",
    "what cannot be seen": "a\u200bb\ufeffc\u00adn",
    "marks on marks": "z" + "\u0301" * 200,
    "very much": "x" * 100_000,
    "very many words": "word " * 50_000,
    "wide letters": "\u5bb6" * 400,
    "nothing": "",
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
KNOW_RICH = {"tables.py", "progress.py", "telling.py", "answer_screen.py", "top.py", "top_screen.py"}
COLOURS = {"\x1b[1m", "\x1b[31m", "\x1b[1;31m", "\x1b[0m"}
"""Bold titles, red troubles, and their end: what tables of ours use."""


def without_colours(text: str) -> str:
    """Return a screen without the few sequences that are ours."""
    for sequence in COLOURS:
        text = text.replace(sequence, "")
    return text


def check(screen: str) -> None:
    """Find nothing on a screen that a terminal would obey, and no line that never ends."""
    shown = without_colours(screen)
    wrong = {letter for letter in shown if not letter.isprintable() and letter != "\n"}
    assert wrong == set()
    assert len(shown) < 40_000
    assert not any(unicodedata.combining(a) and unicodedata.combining(b) and unicodedata.combining(c)
                   for a, b, c in zip(shown, shown[1:], shown[2:], strict=False))  # fmt: skip


def shown_nodes(text: str) -> None:
    """A device that joins or beats says its name, where it is, and its version."""
    show_nodes([screens.node(name=text, address=text, version=text)])


def shown_status(text: str) -> None:
    """Names of meshes and models, and errors that nodes answer with."""
    found = screens.status()
    found["mesh"] = found["nodes"][0]["name"] = found["nodes"][1]["trouble"] = text
    found["nodes"][0]["serves_model"] = found["models"][0]["name"] = found["models"][0]["state"] = text
    show_status(found)


def shown_models(text: str) -> None:
    """A record is a file that others could write."""
    model = {**screens.models()[0], "name": text, "node_names": [text, text], "dtype": text, "split_strategy": text}
    show_models([{**model, "is_ready": False, "state": text}])


def shown_plan(text: str) -> None:
    """Names of devices in a file, and the sentence that names one."""
    show_plan(*screens.plan(device_name=text, bottleneck=text))


def shown_findings(text: str) -> None:
    """Names of nodes and models."""
    found = screens.findings()
    found["nodes"][0]["name"] = found["model"]["name"] = found["model"]["bottleneck"] = text
    show_findings({**found, "not_heard": [text]})


def shown_lines(text: str) -> None:
    """What verbs tell of a load, an error, a note."""
    tell(text)
    say(text)


def shown_top(text: str) -> None:
    """Names of the mesh, nodes and models, and what a stranger calls a request."""
    show_top(Standing(found=overview(text)))


SCREENS = [shown_nodes, shown_status, shown_models, shown_plan, shown_findings, shown_top]


@hostile
@pytest.mark.parametrize("show", SCREENS, ids=lambda show: show.__name__)
@pytest.mark.parametrize("width", [60, 120])
def test_no_word_of_others_breaks_or_colours_a_screen(
    text: str, show: Callable[[str], None], width: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With colours on, all that is obeyed is ours."""
    screens.as_terminal(monkeypatch, width=width, colour=True)
    show(text)
    out, err = capsys.readouterr()
    check(out + err)


@hostile
def test_a_line_that_is_told_stays_one_line(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever makes two of it could say the second one in our name."""
    monkeypatch.delenv("COLUMNS", raising=False)  # what runs the tests may have set it
    tell(f"{text[:1000]} is loaded")
    say(f"{text[:1000]} is loaded")
    out, err = capsys.readouterr()
    assert (out.count("\n"), err.count("\n")) == (1, 1)
    check(out + err)


@hostile
def test_an_event_in_the_log_stays_one_line(text: str) -> None:
    """What a device says stands in the coordinator's log; the traceback of a bug keeps its lines."""
    formatter = _OneLine("%(levelname)s %(message)s")
    record = logging.makeLogRecord({"msg": "%s joined", "args": (text[:1000],), "levelname": "INFO"})
    check(formatter.format(record))
    assert "\n" not in formatter.format(record)
    try:
        raise ValueError
    except ValueError:
        record.exc_info = sys.exc_info()
    assert formatter.format(record).count("\n") >= 2


def test_what_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A version `[/]` is what it says, and what comes after it is printed too."""
    show_table([Column("node"), Column("version")], [("kitchen", "[/]"), ("attic", "[bold]1[/bold] :skull:")])
    out = capsys.readouterr().out
    assert [line.split(maxsplit=1)[1].strip() for line in out.splitlines()[1:]] == ["[/]", "[bold]1[/bold] :skull:"]


def test_a_trouble_is_a_colour_and_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Who sees no colours, or asked for none, reads the same."""
    screens.as_terminal(monkeypatch, width=80, colour=True)
    show_table([Column("node"), Column("state")], [("kitchen", Trouble("silent"))])
    coloured = capsys.readouterr().out
    screens.as_terminal(monkeypatch, width=80, colour=False)
    show_table([Column("node"), Column("state")], [("kitchen", Trouble("silent"))])
    assert "\x1b[31m" in coloured
    assert capsys.readouterr().out == without_colours(coloured)


@hostile
def test_a_bar_of_progress_obeys_nobody(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of nodes stand before their bars."""
    terminal = io.StringIO()
    console = Console(file=terminal, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "screen", lambda **options: console)
    with progress.byte_progress(text) as report:
        report(1, 2)
    moves = ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r")
    written = terminal.getvalue()
    for move in moves:
        written = written.replace(move, "")
    check(written)


@hostile
def test_a_document_is_valid_whatever_it_holds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In ASCII, so that no terminal obeys it either; it says exactly what was said."""
    node = document_of(screens.node(name=text, version=text))
    show_document({"node": node, "rate": float("nan"), "rates": [float("inf"), 1.5]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out[:-1].isprintable()
    document = json.loads(out)
    assert (document["node"]["name"], document["node"]["version"]) == (text, text)
    assert (document["rate"], document["rates"]) == (None, [None, 1.5])


@pytest.mark.parametrize(("count", "words"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_a_count_and_its_noun_agree(count: int, words: str) -> None:
    """Also where a plural has no s of its own."""
    assert counted(count, "node") == words
    assert counted(count, "entry", "entries").split()[1] == ("entry" if count == 1 else "entries")


@hostile
def test_what_a_model_says_is_not_obeyed_by_a_terminal(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and tabs stay; in a pipe all stays as it is."""
    for is_terminal in (True, False):
        stdout = io.StringIO()
        monkeypatch.setattr(stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(sys, "stdout", stdout)
        AnswerScreen(is_quiet=False).text(f"{text}\n\tnext")
        written = stdout.getvalue()
        assert written.endswith("\n\tnext")
        assert (
            written == f"{text}\n\tnext"
            if not is_terminal
            else not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", written)
        )


def test_letters_of_all_scripts_stay() -> None:
    """Harmless is what people write, with two spaces in a path too."""
    assert plain("/home/me/a  b") == "/home/me/a  b"
    assert plain("a" + " " * 100_000 + "b\t\n  c") == "a b c"
    for text in ("Küche", "e\u0301t\u00e9", "кухня", "台所", "ห้องน้ำ", "🍳"):
        assert plain(text) == text


PRINTERS = {"plain", "json.dumps"}


def is_plain(value: ast.expr) -> bool:
    """Tell whether it is our own text, a number in a format, or went through `plain`."""
    if isinstance(value, ast.JoinedStr):
        return all(is_plain(part) for part in value.values)
    if isinstance(value, ast.FormattedValue):
        return value.format_spec is not None or is_plain(value.value)
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and ast.unparse(value.func) in PRINTERS)


def bare_prints(tree: ast.AST) -> list[int]:
    """Return the lines on which something is printed that did not go through `plain`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if not all(map(is_plain, node.args))
    ]


def test_nothing_is_printed_that_was_not_made_plain() -> None:
    """In whatever programs say; and few files know rich, which takes brackets for markup."""
    wrong = []
    for path in python_files("coordinator", "shardnode", "common"):
        lines = bare_prints(tree_of(path)) if "native/build" not in name_of(path) else []
        wrong += [f"{name_of(path)}:{line}" for line in lines]
        if "import rich" in path.read_text() or "from rich" in path.read_text():
            wrong += [] if path.name in KNOW_RICH else [name_of(path)]
    assert wrong == []


MANY = re.compile(r"^ ?(?:[a-z]+ )?(?:nodes|models|devices|tokens|rounds|ratios|positions|sequences)\b|\(s\)")


def bare_plurals(tree: ast.AST) -> list[int]:
    """Return the lines on which a number that may be 1 stands before a plural; our own limits are larger."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for number, text in zip(node.values, node.values[1:], strict=False)
        if isinstance(number, ast.FormattedValue) and number.format_spec is None
        and isinstance(number.value, ast.Name | ast.Attribute | ast.Call | ast.BinOp)
        and not ast.unparse(number.value).isupper() and ast.unparse(number.value)[:2] != "co"
        and isinstance(text, ast.Constant) and MANY.search(str(text.value))
    ]  # fmt: skip


def test_no_message_says_1_nodes() -> None:
    """Wherever a count stands before what is counted, `counted` makes the two agree."""
    left = {"coordinator/tokenizer/gguf_vocab.py"}  # of a whole vocabulary
    wrong = [
        f"{name_of(path)}:{line}"
        for path in python_files("coordinator", "shardnode", "common")
        for line in bare_plurals(tree_of(path))
        if name_of(path) not in left
    ]
    assert wrong == []

"""Do habits from other programs work, or is it told what it is called here? And --version, ~, sizes with units.

Covers: names and verbs of others, version, completion, paths and sizes in every option of our programs.
Does not cover: what options do (tests/e2e).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.main import get_command

from common.errors import EXIT_INPUT, EXIT_INTERNAL, EXIT_MODEL, EXIT_SLICE
from common.program import familiar
from common.program.command_line import run_program
from common.program.path_options import as_address, as_path
from coordinator.cli.coordinator import app as coordinator
from coordinator.cli.main import program as coordinator_cli
from coordinator.cli.verbs import MEANT
from shardnode.cli import app as shardnode
from tests.support.cli import Finished

PROGRAMS = {"coordinator-cli": coordinator_cli(), "coordinator": coordinator, "shardnode": shardnode}
GENERATE = ["generate", "--model", "nowhere"]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Return a function that runs a program as typed; the home directory is an empty one."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(program: str, *words: str) -> Finished:
        monkeypatch.setattr(sys, "argv", [program, *words])
        with pytest.raises(SystemExit) as ended:
            run_program(PROGRAMS[program], program)
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Finished(code=ended.value.code, out=out, err=err)

    return run


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command of every program with its name."""
    pending = [(name, get_command(app)) for name, app in PROGRAMS.items()]
    while pending:
        name, command = pending.pop()
        yield name, command
        pending += [(f"{name} {verb}", found) for verb, found in getattr(command, "commands", {}).items()]


def parameters() -> Iterator[tuple[str, Any]]:
    """Yield every option and argument with where it is."""
    for name, command in commands():
        for parameter in command.params:
            yield f"{name} {parameter.opts[0]}", parameter


def declared() -> Iterator[tuple[str, str, Any, Any]]:
    """Yield program, name, type and declaration of every option and argument of ours."""
    for program, app in PROGRAMS.items():
        apps = [app, *(group.typer_instance for group in app.registered_groups)]
        found = [*(command.callback for one in apps for command in one.registered_commands)]
        found += [one.registered_callback.callback for one in apps if one.registered_callback]
        for function in filter(None, found):
            for name, hint in get_type_hints(function, include_extras=True).items():
                # Python 3.10 says of an option whose default is None that it may be None, on top of what it is.
                for one in (hint, *get_args(hint)):
                    if get_origin(one) is Annotated:
                        yield program, name, get_args(one)[0], get_args(one)[1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_its_version(typed: Any, program: str) -> None:
    """On stdout and nothing else, whatever else is asked for or missing."""
    assert typed(program, "--version") == Finished(code=0, out=f"{program} {version('shardmesh')}\n", err="")


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["--top-p", "7"], "--p"), (["--top_k", "-1"], "--k"), (["--temp", "-1"], "--temperature"),
        (["--max-tokens", "0"], "--length"), (["--max-new-tokens", "0"], "--length"), (["-n", "0"], "--length"),
        (["--n-predict", "x"], "--length"),
    ],
)  # fmt: skip
def test_the_same_under_another_name_is_done(typed: Any, words: list[str], ours: str) -> None:
    """Its value is looked at as ours is."""
    for option in (words, [ours, words[1]]):
        finished = typed("coordinator-cli", *GENERATE, *option)
        assert (finished.code, ours in finished.error_line("coordinator-cli", EXIT_INPUT)) == (EXIT_INPUT, True)


def test_short_names_of_two_options_are_the_common_ones(typed: Any) -> None:
    """-m is a model, -n how many tokens."""
    line = typed("coordinator-cli", "generate", "-m", "nowhere", "-n", "3").error_line("coordinator-cli", EXIT_MODEL)
    assert "nowhere does not exist" in line


@pytest.mark.parametrize(
    ("program", "words", "ours"),
    [
        ("coordinator-cli", [*GENERATE, "-p", "hi"], "--prompt"),
        ("coordinator-cli", [*GENERATE, "-ngl", "99"], "--use-gpu"),
        ("coordinator-cli", [*GENERATE, "-c", "4096"], "--kv-budget-bytes"),
        ("coordinator-cli", [*GENERATE, "-t", "8"], "--world-size"),
        ("coordinator-cli", [*GENERATE, "--stream"], "--json"),
        ("coordinator-cli", [*GENERATE, "--do-sample"], "--temperature"),
        ("coordinator-cli", [*GENERATE, "--system=be brief"], "--prefix"),
        ("coordinator-cli", ["plan", "nowhere", "--format", "json"], "--json"),
        ("coordinator", ["--host", "0.0.0.0"], "--master-ip"),
        ("coordinator", ["--port", "1"], "--master-port"),
        ("shardnode", ["--port", "1"], "--listen"),
        ("shardnode", ["--model", "x"], "--slice-dir"),
        ("shardnode", ["--max-memory", "2GB"], "--memory-budget"),
    ],
)  # fmt: skip
def test_what_is_called_otherwise_here_is_told(typed: Any, program: Any, words: list[str], ours: str) -> None:
    """In one line that begins with what was typed."""
    line = typed(program, *words).error_line(program, EXIT_INPUT)
    assert re.search(rf"there is no -.*{ours}\b", line), line


def test_an_option_of_another_verb_is_named_as_it_was_typed(typed: Any) -> None:
    """Not as what it would have been taken for there."""
    line = typed("coordinator-cli", "nodes", "--max-tokens", "3").error_line("coordinator-cli", EXIT_INPUT)
    assert "there is no --max-tokens here" in line


def test_every_hint_names_an_option_that_there_is() -> None:
    """And none hides an option of ours."""
    ours = {name for _, parameter in parameters() for name in parameter.opts}
    named = {option for options in familiar.LIKE.values() for option in options}
    named |= {f"--{name}" for name in familiar.SAME.values()}
    texts = " ".join([*familiar.ABOUT.values(), *familiar.NEEDLESS.values()])
    assert named | set(re.findall(r"--[a-z-]+", texts)) <= ours
    assert {f"--{name}" for name in familiar.SAME} & ours == set()
    assert set(familiar.NEEDLESS) & ours == set()
    assert all((word, option) in {(a, b) for a, many in familiar.LIKE.items() for b in many}
               for word, option in familiar.ABOUT)  # fmt: skip


@pytest.mark.parametrize("verb", ["run", "list", "ps", "pull", "serve", "chat", "rm", "show", "help", "version"])
def test_a_verb_of_other_programs_is_told_ours(typed: Any, verb: str) -> None:
    """With what to type; whatever follows it."""
    for words in ([verb], [verb, "llama3", "--verbose"]):
        line = typed("coordinator-cli", *words).error_line("coordinator-cli", EXIT_INPUT)
        assert f"there is no '{verb}'; " in line
        assert "coordinator" in line.partition(";")[2]


@pytest.mark.parametrize("verb", ["serve", "run", "load"])
def test_a_node_knows_verbs_that_it_has_not(typed: Any, verb: str) -> None:
    """What serves needs none."""
    line = typed("shardnode", verb).error_line("shardnode", EXIT_INPUT)
    assert f"there is no '{verb}'; " in line


def test_a_list_of_verbs_has_whole_sentences(typed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is cut off where its line ends."""
    monkeypatch.setenv("COLUMNS", "60")
    for words in (["--help"], ["mesh", "--help"]):
        out = typed("coordinator-cli", *words).out
        assert "Commands:" in out
        assert "..." not in out.partition("Commands:")[2]
        assert all(len(line) <= 60 for line in out.splitlines())


def test_every_verb_that_is_told_is_there() -> None:
    """And none of ours is hidden."""
    verbs = {name.removeprefix("coordinator-cli ") for name, _ in commands() if name.startswith("coordinator-cli ")}
    for sentence in MEANT.values():
        for words in re.findall(r"coordinator-cli ((?:mesh )?[a-z]+)", sentence):
            assert words in verbs, sentence
    assert set(MEANT) & verbs == set()


def test_every_option_that_names_a_file_knows_what_home_is() -> None:
    """One that is added as a plain path would take ~ for a directory's name."""
    paths = [(program, name, about) for program, name, kind, about in declared()
             if Path in (kind, *get_args(kind)) or re.search(r"dir$|path|file|devices$|config$", name)]  # fmt: skip
    assert len(paths) > 12
    assert [(program, name) for program, name, about in paths if about.parser is not as_path] == []
    addresses = {(program, name) for program, name, _, about in declared() if about.parser is as_address}
    assert addresses == {("coordinator-cli", "nodes"), ("coordinator-cli", "coordinator"), ("shardnode", "listen")}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("unix:~/a.sock", "unix:/home/me/a.sock"), ("unix:/a~b", "unix:/a~b"), ("127.0.0.1:0", "127.0.0.1:0"),
        ("unix:~/a,unix:~/b", "unix:/home/me/a,unix:/home/me/b"), ("kitchen,attic", "kitchen,attic"),
    ],
)  # fmt: skip
def test_home_is_known_in_addresses_of_sockets(monkeypatch: pytest.MonkeyPatch, text: str, meant: str) -> None:
    """Also in lists of them."""
    monkeypatch.setenv("HOME", "/home/me")
    assert as_address(text) == meant


def test_home_is_known_where_no_shell_has_looked(typed: Any, tmp_path: Path) -> None:
    """In a file of options, behind an equals sign, in a list."""
    here = str(tmp_path)
    (tmp_path / "node.toml").write_text('slice-dir = "~/slice"\n')
    assert f"{here}/slice" in typed("shardnode", "--config=~/node.toml").error_line("shardnode", EXIT_SLICE)
    assert f"{here}/model" in typed("coordinator-cli", "generate", "--model=~/model").err
    assert f"{here}/state" in typed("coordinator-cli", "nodes", "--state-dir=~/state").err
    assert f"{here}/x.toml" in typed("coordinator-cli", "plan", "~/m", "--devices=~/x.toml").err + here + "/x.toml"


SIZES = [
    ("coordinator-cli", "kv-budget-bytes"), ("coordinator-cli", "window-bytes"), ("coordinator-cli", "read-bytes"),
    ("coordinator-cli", "memory-budget"), ("shardnode", "kv-budget-bytes"), ("shardnode", "window-bytes"),
    ("shardnode", "read-bytes"), ("shardnode", "memory-budget"), ("shardnode", "keep-bytes"),
]  # fmt: skip


def test_no_size_is_a_bare_number() -> None:
    """Whatever has bytes in its name, or is a budget, takes a unit."""
    sizes = {(program, name.replace("_", "-")): kind for program, name, kind, _ in declared()
             if re.search(r"bytes|budget|memory$", name)}  # fmt: skip
    assert set(sizes) == set(SIZES)
    assert [where for where, kind in sizes.items() if int in (kind, *get_args(kind))] == []


@pytest.mark.parametrize(("option"), ["kv-budget-bytes", "window-bytes", "read-bytes"])
@pytest.mark.parametrize("value", ["'1.5MiB'", "'512 MiB'", "4096000", "'4096000'", "'4.096MB'"])
def test_a_size_in_a_file_has_a_unit_or_is_a_number_of_bytes(
    typed: Any, tmp_path: Path, option: str, value: str
) -> None:
    """And what comes next is told: that there is no slice."""
    (tmp_path / "node.toml").write_text(f'slice-dir = "~/none"\n{option} = {value}\n')
    typed("shardnode", "--config", "~/node.toml").error_line("shardnode", EXIT_SLICE)


@pytest.mark.parametrize(("program", "option"), SIZES)
def test_a_size_that_is_none_is_told_with_what_to_write(typed: Any, tmp_path: Path, program: Any, option: str) -> None:
    """Before the model is looked at, or right after."""
    (tmp_path / "config.json").write_text("{}")
    words = ["--slice-dir", "nowhere"] if program == "shardnode" else ["generate", "--model", str(tmp_path)]
    line = typed(program, *words, f"--{option}", "1XB").error_line(program, EXIT_INPUT)
    assert f"--{option} is '1XB'; write bytes or a size such as" in line


@pytest.mark.parametrize(("name", "words"), [("coordinator-cli", "sta"), ("coordinator", "--mas"), ("shardnode", "jo")])
def test_a_shell_can_complete_what_is_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    """As the script that --install-completion writes asks for it."""
    variable = f"_{name}_COMPLETE".replace("-", "_").upper()
    for key, value in {variable: "complete_bash", "COMP_WORDS": f"{name} {words}", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises((SystemExit, typer.Exit)):
        run_program(PROGRAMS[name], name)
    completed = capsys.readouterr().out.split()
    assert completed
    assert all(word.startswith(words) for word in completed)


def test_a_number_where_a_path_or_an_address_belongs_is_told(typed: Any, tmp_path: Path) -> None:
    """TOML knows numbers; whoever writes one is told so."""
    for line in ("listen = 50051", "slice-dir = 5"):
        (tmp_path / "node.toml").write_text(line)
        finished = typed("shardnode", "--config", str(tmp_path / "node.toml"))
        assert finished.code not in (0, EXIT_INTERNAL)


def test_mesh_alone_explains_its_verbs(typed: Any) -> None:
    """As the program does without a verb."""
    finished = typed("coordinator-cli", "mesh")
    assert (finished.code, "invite" in finished.out) == (0, True)

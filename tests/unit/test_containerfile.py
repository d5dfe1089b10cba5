"""Does deploy/Containerfile name files that there are, versions that we test with, and a user that is not root?

Covers: what can be read in it and in .dockerignore. Does not cover: building it, which takes an engine for containers.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "deploy" / "Containerfile").read_text()
KNOWN = {
    "ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip
PROGRAMS = ("coordinator", "shardnode")

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """Return what it says, in order: a word and what follows, comments and line breaks taken out."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in joined]


def stage(name: str) -> list[Instruction]:
    """Return the instructions of one stage, FROM not among them."""
    found: list[Instruction] = []
    inside = False
    for word, rest in instructions():
        if word == "FROM":
            inside = rest.endswith(f" AS {name}")
        elif inside:
            found.append((word, rest))
    return found


def arguments() -> dict[str, str]:
    """Return every ARG and its default."""
    return dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")


def test_every_instruction_is_one_that_engines_know() -> None:
    """A word that is misspelt would only be seen when somebody builds."""
    assert {word for word, _ in instructions()} == KNOWN
    assert instructions()[0][0] == "ARG"


def test_every_stage_comes_from_one_that_was_made_before() -> None:
    """Or from the base, whose Python is named in one place and is one that we test with."""
    known = {"${BASE}"}
    for _, rest in (found for found in instructions() if found[0] == "FROM"):
        source, name = rest.split(" AS ")
        assert source in known
        known.add(name)
    assert re.fullmatch(r"python:3\.1[0-4]-slim-[a-z]+(@sha256:[0-9a-f]{64})?", arguments()["BASE"])
    copied = [rest.split()[0].removeprefix("--from=") for word, rest in instructions() if rest.startswith("--from=")]
    assert copied
    assert set(copied) <= known


def test_what_it_copies_is_there() -> None:
    """Everything that the wheel is made of, and nothing that is not in the repository."""
    copied = [rest.split()[:-1] for word, rest in stage("build") if word == "COPY"]
    names = {name for group in copied for name in group}
    assert [name for name in sorted(names) if not (REPOSITORY / name).exists()] == []
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    beside = {"pyproject.toml", "run.lock", "hatch_build.py"}
    assert names == needed | beside | {project["project"]["readme"]}


def test_what_this_machine_has_made_stays_out_of_it() -> None:
    """Kernels of another processor, above all: a build without a compiler would take them and not fail."""
    kept_out = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {".venv", "models", "**/__pycache__", "common/native/*.so"} <= set(kept_out)


def test_it_installs_what_runs_in_the_versions_that_are_tested_and_has_kernels() -> None:
    """No extra, so no torch; and the build ends where the compiler has not made what nothing computes without."""
    made = [rest for word, rest in stage("build") if word == "RUN"]
    assert any("pip install --require-hashes -r run.lock" in rest for rest in made)
    assert any(rest.endswith("pip install --no-deps --no-build-isolation .") for rest in made)
    assert made[-1].endswith("common/native/matmul.so")


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_image_runs_one_program_as_a_user_with_no_rights(program: str) -> None:
    """Its state outlives it in a volume that is this user's, and a stop is the signal that programs drain on."""
    assert ("ENTRYPOINT", json.dumps([program])) in stage(program)
    assert f'"{program}":' in (REPOSITORY / "hatch_build.py").read_text()
    base = dict(stage("base"))
    assert int(base["USER"]) > 0
    assert f"--uid {base['USER']} " in base["RUN"]
    assert f"-o shardmesh -g shardmesh -m 700 {base['VOLUME']}" in base["RUN"]
    assert base["STOPSIGNAL"] == "SIGTERM"
    order = [word for word, _ in stage("base")]
    assert order.index("RUN") < order.index("USER") < order.index("VOLUME")


def test_the_programs_find_their_state_in_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that systemd sets for services too."""
    from common.machine.state_directory import state_directory

    values = dict(rest.split("=", 1) for word, rest in stage("base") if word == "ENV")
    monkeypatch.setenv("STATE_DIRECTORY", values["STATE_DIRECTORY"])
    assert str(state_directory("node")) == dict(stage("base"))["VOLUME"]

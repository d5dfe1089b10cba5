"""Does Ctrl-C end a program in a word, from its first millisecond on?

Covers: while Python starts, while a program imports, while it works. Does not cover: what a program imports
(test_program_imports.py), what it leaves behind (tests/e2e/test_processes_end.py).
"""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import EXIT_INTERRUPTED

REPOSITORY = Path(__file__).resolve().parent.parent.parent
INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from {start} import main
main()
"""
STARTS = ["shardnode.start", "coordinator.cli.coordinator_start", "coordinator.cli.start"]
BEFORE = """
import sys
before = set(sys.modules)
import {start}
print(*sorted(set(sys.modules) - before))
"""
BUSY = """
import os, signal, time
from typer import Typer
from common.program import command_line
from common.program.program_start import end_on_interrupt

def work():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

def ending(name, message, code):
    print(message, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

end_on_interrupt()
{more}
app = Typer()
app.command()(work)
command_line.run_process(app, "program")
"""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("module", ["logging", "typer", "common.errors", "common.program.logs"])
def test_ctrl_c_while_a_program_imports_ends_it_without_a_traceback(start: str, module: str) -> None:
    """Imports take half a second, longer on a Pi, and people are quick."""
    code = INTERRUPTED.format(start=start, module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("program", ["shardnode", "coordinator", "coordinator-cli"])
def test_ctrl_c_while_python_itself_starts_waits_and_then_ends_the_program(tmp_path: Path, program: str) -> None:
    """In its first 20 ms the traceback would be one of Python's own files; the start script holds the signal back."""
    if subprocess.run(["env", "--block-signal=INT", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the env of this machine blocks no signals")
    script = shutil.copy(Path(sys.executable).with_name(program), tmp_path)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nkill -INT $$\necho held back\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run([script, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "held back\n", "")


@pytest.mark.parametrize("name", ["python", "python3"])
def test_a_python_without_shardmesh_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    """The one beside the script, by either name: the script was copied, or the environment made anew."""
    script = tmp_path / "shardnode"
    text = (REPOSITORY / "common" / "program" / "start_script.sh").read_text()
    script.write_text(text.replace("MODULE", "shardnode.start").replace("PROGRAM", "shardnode"))
    python = tmp_path / name
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S -E "$@"\n')
    for path in (script, python):
        path.chmod(0o755)
    done = subprocess.run([script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("shardnode: shardmesh is not installed for /")
    assert done.stderr.endswith("; install it into a virtual environment\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("start", STARTS)
def test_nothing_that_takes_time_is_imported_before_ctrl_c_ends_a_program(start: str) -> None:
    """Until then it is an exception with a traceback: only our own packages, which are empty, come first."""
    code = BEFORE.format(start=start)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert found <= {"common", "coordinator", "shardnode", "__future__"}


BROKEN = """
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except BaseException:
        raise {error}("cannot load module more than once per process")
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "command_line._end = ending",
        *(BROKEN.format(error=one) for one in ("ImportError", "SystemError", "OSError")),
    ],
    ids=["once", "again while it ends", "in an import", "in a library", "in a read"],
)
def test_ctrl_c_in_a_program_that_works_is_one_word_and_its_exit_code(more: str) -> None:
    """However often it is pressed."""
    code = BUSY.format(more=more)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == EXIT_INTERRUPTED
    assert (done.stdout + done.stderr).strip() in ("program: interrupted", "interrupted")

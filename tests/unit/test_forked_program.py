"""Does a program that is forked behave as one that was started: pipes, exit, kill, nothing of the parent's repeated?

Each test forks from a fresh interpreter: this process has threads of torch and gRPC, which no fork survives.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
def main():
    line = sys.stdin.readline()
    print(sys.argv[1:], line.strip(), os.getpgrp() == os.getpid(), os.getsid(0) == os.getsid(os.getppid()), flush=True)
    int(sys.stdin.read() or 0)
if __name__ == "__main__":
    main()
"""
PREPARE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from common.machine.forked_program import ForkedProgram
sys.stdout.write("once ")  # not flushed: must not come out of the child too
child = ForkedProgram("echo_program", ["a", "b c"])
"""


def run(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run PREPARE and `script` in an interpreter of its own."""
    (tmp_path / "echo_program.py").write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, "-c", PREPARE + script, str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_it_reads_and_writes_pipes_and_ends_with_its_own_code(tmp_path: Path) -> None:
    """Arguments, stdin and stdout are the child's own, and so is its group: Ctrl-C does not reach it, and yet it
    is of its parent's session, with which it shares cores."""
    finished = run(tmp_path, """
child.stdin.write(b"hello\\n")
child.stdin.close()
print(child.stdout.read().decode().strip())
child.wait(20)
""")  # fmt: skip
    assert (finished.stdout.strip(), finished.stderr) == ("once ['a', 'b c'] hello True True", "")


def test_waiting_has_a_limit_and_killing_ends_it(tmp_path: Path) -> None:
    """A child that goes on is a TimeoutError; killed, it is waited for, and may be killed again."""
    finished = run(tmp_path, """
try:
    child.wait(0.02)
except TimeoutError:
    print("goes on")
child.kill()
child.wait()
child.kill()
try:
    os.kill(child.pid, 0)
except ProcessLookupError:
    print("gone")
""")  # fmt: skip
    assert (finished.stdout.split(), finished.stderr) == (["once", "goes", "on", "gone"], "")


def test_a_fault_in_the_child_stays_there(tmp_path: Path) -> None:
    """It is printed once, and the parent sees the end of the pipe."""
    finished = run(tmp_path, """
child.stdin.write(b"1\\nno number")
child.stdin.close()
print(len(child.stdout.read().splitlines()))
child.wait(20)
print("parent goes on")
""")  # fmt: skip
    assert finished.stdout.split() == ["once", "1", "parent", "goes", "on"]
    assert finished.stderr.count("Traceback") == 1
    assert "ValueError" in finished.stderr

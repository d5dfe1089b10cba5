"""Does deploy/install.sh explain itself, and refuse what is wrong before it touches anything?

Covers: every end before its first step. Does not cover: installing (tests/systemd/test_install.py, in a container).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "install.sh"
MOST_LINES, LONGEST_LINE = 120, 120


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installer with arguments that it must refuse or explain."""
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_a_person_can_read_it() -> None:
    """Before root runs it."""
    lines = SCRIPT.read_text().splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= LONGEST_LINE
    assert "set -euo pipefail" in lines


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_it_explains_itself(option: str) -> None:
    """To anybody, on any machine; whatever else stands on the line."""
    asked = install("node", option)
    assert (asked.returncode, asked.stderr) == (0, "")
    for word in ("node", "coordinator", "--prefix", "/opt/shardmesh", "root"):
        assert word in asked.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "usage: "),
        (("kitchen",), "what is 'kitchen'?"),
        (("node", "coordinator"), "one of node and coordinator"),
        (("node", "--prefix"), "--prefix needs a directory"),
        (("node", "--prefix", "opt/shardmesh"), "an absolute path"),
        (("node", "--prefix", "/opt/my mesh"), "an absolute path"),
        (("node", "--prefix", "/opt/%h"), "an absolute path"),
        (("node", "--prefix", "/opt/a#b;s/User/Group/"), "an absolute path"),
        (("node", "--prefix", "/srv/../home/me/mesh"), "an absolute path"),
        (("node", "--prefix", "/home/me/shardmesh"), "cannot see /home/me/shardmesh"),
        (("coordinator", "--prefix", "/root/shardmesh/"), "cannot see /root/shardmesh;"),
        (("coordinator", "--prefix", "/tmp"), "cannot see /tmp;"),
    ],
)
def test_a_wrong_line_is_refused(arguments: tuple[str, ...], said: str) -> None:
    """With exit code 2 and nothing done."""
    refused = install(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr


def test_a_tree_that_is_not_there_is_refused() -> None:
    """Whoever runs it: it needs root, systemd and the programs, and says which of them is missing."""
    refused = install("node", "--prefix", "/nowhere/shardmesh")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1

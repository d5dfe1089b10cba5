"""Makes the committed answers of transformers anew, or says which of them it no longer gives.

    python -m tests.golden [--check]         # make golden; .ci/run

Every test that takes the fixture `theirs` runs, and asks transformers instead of the files. Needs `make setup-dev`.
Does not cover: what is asked (questions.py, make_smollm2.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.transformers_answers import ANSWERS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ASKING = ("tests/unit", "tests/golden")
"""Folders of tests that ask; those of whole programs know what a test here has asked (reference_models.py)."""
NEEDED = ("torch", "transformers", "accelerate")


def main() -> int:
    """Ask, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description="asks transformers what tests expect")
    parser.add_argument("--check", action="store_true", help="change nothing; name what is no longer said")
    check = parser.parse_args().check
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"tests.golden: {', '.join(missing)}: not installed; run: make setup-dev", file=sys.stderr)
        return 2
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # transformers shall ask nobody, and draw no bars
    return _check() if check else _make()


def _make() -> int:
    """Write what transformers says; if all went well, answers to what nobody asks any more are gone."""
    from tests.golden import make_smollm2

    with tempfile.TemporaryDirectory(prefix="shardmesh-golden-") as directory:
        asked = _ask(Path(directory))
        if not asked:
            shutil.rmtree(ANSWERS)
        shutil.copytree(directory, ANSWERS, dirs_exist_ok=True)
    return make_smollm2.main() or asked


def _check() -> int:
    from tests.golden import make_smollm2
    from tests.golden.asking import answer_differences

    with tempfile.TemporaryDirectory(prefix="shardmesh-golden-") as directory:
        asked = _ask(Path(directory))
        found = answer_differences(ANSWERS, Path(directory)) + make_smollm2.differences()
    for line in found:
        print(f"tests.golden: {line}", file=sys.stderr)
    if found:
        print(
            "tests.golden: transformers says something else than the files; if it should: make golden", file=sys.stderr
        )
    return asked or int(bool(found))


def _ask(directory: Path) -> int:
    """Run the tests that ask, their answers into `directory`, and return the exit code."""
    files = sorted(path for place in ASKING for path in (REPOSITORY / place).glob("test_*.py"))
    asking = [str(path) for path in files if "theirs: Theirs" in path.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "--ask-transformers", str(directory), "--timeout", "600", *asking]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

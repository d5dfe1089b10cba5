"""A pytest plugin that has tests load another build of the library: `-p tests.support.other_library --library PATH`.

Covers: what the process of these tests loads. Does not cover: programs that the tests start, which load the usual one.
The product has no such switch: whoever could set one would choose what code it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common.native import build

NOWHERE = "nowhere"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the library's path."""
    parser.addoption("--library", type=Path, required=True, help="the build of our kernels to test")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Put the library in place of the usual one, before a conftest.py can have loaded that."""
    if "common.native.library" in sys.modules:
        raise pytest.UsageError("the usual library is loaded already")
    build.LIBRARY = early_config.known_args_namespace.library


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was loaded, for who has to be sure."""
    functions = sys.modules["common.native.library"].load().functions
    terminalreporter.write_line(f"kernels from {functions._name if functions else NOWHERE}")

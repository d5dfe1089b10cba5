"""What all our programs do alike on the command line: spellings, errors as one line, exit codes.

Covers: `--split_bin` for `--split-bin`, ShardmeshError to exit code, Ctrl-C, a closed pipe, bugs.
Does not cover: any program's own options.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click
import typer

from common.errors import EXIT_INPUT, EXIT_INTERNAL, EXIT_INTERRUPTED, ShardmeshError


def _with_dashes(word: str) -> str:
    """Return an option with dashes for underscores; words that are not options stay as they are."""
    return word.replace("_", "-") if word.startswith("--") else word


CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "token_normalize_func": _with_dashes}


def run_program(app: typer.Typer, name: str) -> None:
    """Run a typer program and exit: 0, or the exit code of the error that ended it (common/errors.py)."""
    try:
        app(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        # A flag that click refuses: its own text, then where help is, on one line.
        print(f"{name}: {' '.join(error.format_message().split())} (--help explains)", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except ShardmeshError as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone, as in `... | head -1`; that is no error of anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        logging.getLogger(name).debug("internal error", exc_info=error)
        print(f"{name}: internal error: {type(error).__name__}: {error}; this is a bug, please report it "
              "(--log-level debug shows where)", file=sys.stderr)  # fmt: skip
        sys.exit(EXIT_INTERNAL)

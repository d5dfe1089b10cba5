"""What all our programs do alike on the command line: spellings, errors as one line, exit codes.

Covers: `--split_bin` for `--split-bin`, ShardmeshError to exit code, Ctrl-C, a closed pipe, a full disk, bugs.
An error is one line and printable, whatever a file name or a peer puts into it.
Does not cover: any program's own options, what others call ours (familiar.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import Any, NoReturn

import typer

from common.errors import EXIT_INPUT, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, DiskFull, ShardmeshError
from common.program.familiar import our_word, what_is_meant
from common.program.program_start import raise_on_interrupt, was_interrupted
from common.wording import plain

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "token_normalize_func": our_word}


# Newer Typers carry their own copy of click, older ones (those for Python 3.10) use click itself; both have
# ClickException (a flag that is refused) as the grandparent of BadParameter, which is public in both.
_REFUSED_FLAG: Any = typer.BadParameter.__mro__[2]


def run_program(app: typer.Typer, name: str) -> NoReturn:
    """Run a typer program and exit: 0, or the exit code of the error that ended it (common/errors.py)."""
    try:
        # A number comes back from typer.Exit, and from Ctrl-C, which typer catches before we can.
        code = app(prog_name=name, standalone_mode=False)
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else EXIT_OK)
    except _REFUSED_FLAG as error:
        _end(name, f"{_in_words(error)} (--help explains)", EXIT_INPUT)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except ShardmeshError as error:
        _end(name, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _end(name, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _end_without_reader()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer caught it and made an exit code 1 of it
            _end_without_reader()
        raise
    except Exception as error:
        if was_interrupted():
            _end(name, "interrupted", EXIT_INTERRUPTED)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # where stdout goes: a file
            _drop_stdout()
            _end(name, f"cannot write: {error.strerror}; make room", DiskFull.exit_code)
        logging.getLogger(name).debug("internal error", exc_info=error)
        _end(name, f"internal error: {type(error).__name__}: {error}; this is a bug, please report it "
             "(--log-level debug shows where)", EXIT_INTERNAL)  # fmt: skip


def run_process(app: typer.Typer, name: str) -> NoReturn:
    """Do as `run_program` and end the process without the interpreter's own shutdown.

    By then everything of ours is closed. After Ctrl-C that shutdown sometimes took gRPC 20 s, and where torch is
    loaded it takes half a second.
    """
    try:
        raise_on_interrupt()
        _open_streams()
        run_program(app, name)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else EXIT_INTERNAL
    except KeyboardInterrupt:  # once more, while it ends
        code = EXIT_INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _open_streams() -> None:
    """Have somewhere to write where a caller has closed stdout or stderr (`>&-`): nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _in_words(error: Any) -> str:
    """Return what is wrong with a flag; of one that there is not, what it is called here, if that is known."""
    context = getattr(error, "ctx", None)
    if context is not None:
        known = {name for parameter in context.command.params for name in parameter.opts}
        # Words such as -ngl are read as -n with a value, which is then what is wrong.
        words = [word for word in sys.argv[1:] if word[:1] == "-" and word[1:].isalpha() and len(word) > 2]
        for option in (getattr(error, "option_name", None), *words):
            if option and (sentence := what_is_meant(option, known, sys.argv[1:])):
                return sentence
    return str(error.format_message())


def _end(name: str, message: str, code: int) -> NoReturn:
    # A name or a peer's message may hold control characters, which a terminal would obey.
    print(plain(f"{name}: {message}"), file=sys.stderr)
    sys.exit(code)


def _end_without_reader() -> NoReturn:
    """Exit quietly: whoever read our output has gone, as in `... | head -1`, and that is no error of anybody."""
    _drop_stdout()
    sys.exit(EXIT_OK)


def _drop_stdout() -> None:
    """Have what is still buffered not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

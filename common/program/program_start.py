"""How a program begins: Ctrl-C while it still imports ends it without a traceback; when that was.

    end_on_interrupt()
    from shardnode.cli import main as program
    program()  # which calls raise_on_interrupt, where somebody catches it

Covers: from our first line on, and what was held back before it. Does not cover: holding it back while Python itself
starts (start_script.sh); Ctrl-C once it runs (command_line.py).
It imports next to nothing, since until its first call Ctrl-C is an exception that nobody expects.
"""

# Not `signal`, which makes enumerations of these first and takes as long as all before it.
import _signal as signal  # type: ignore[import-not-found] # typeshed does not know it
import os
import sys
import time

AGAIN_SECONDS = 0.01

_started_at = time.perf_counter()
_was_interrupted = _has_begun = False


def seconds_since_start() -> float:
    """Return how long this process has been running, but for the hundredth of a second before our first line."""
    return time.perf_counter() - _started_at


def has_begun() -> bool:
    """Tell whether this process is one of our programs, not somebody else's that has imported us, or a test's."""
    return _has_begun


def end_on_interrupt() -> None:
    """Have Ctrl-C end the process at once from now on; not where a shell in the background has it ignored.

    One that start_script.sh has held back until now ends it here.
    """
    global _has_begun
    _has_begun = True
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _take_name(sys.argv[0])
    # numpy's own products are not used; it would make a thread for each core, which would not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def raise_on_interrupt() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, and be remembered; not where it is ignored, or has a use already."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _lost


def was_interrupted() -> bool:
    """Tell whether Ctrl-C was pressed: libraries that it breaks off raise what they like."""
    return _was_interrupted


def _take_name(script: str) -> None:
    """Have `top` and `pgrep` see the program's name instead of python's, as if the kernel had started the script."""
    name = script.rpartition("/")[2]
    if name not in ("shardnode", "coordinator", "coordinator-cli"):
        return
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
    except OSError:
        pass  # macOS has no such file, and a name is not worth a word


def _interrupt(number: int, frame: object) -> None:
    global _was_interrupted
    _was_interrupted = True
    raise KeyboardInterrupt


def _lost(lost: "sys.UnraisableHookArgs") -> None:
    """Raise Ctrl-C again, and say nothing, where it came within what Python lets nothing out of, as in an import."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
    elif signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, _interrupt):
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

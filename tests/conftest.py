"""What every test gets: no leaks unnoticed, one torch thread, no hub, the demo model, and what transformers says.

Covers: failing the run when child processes, threads or listening ports outlive it; which file comes first; asking
transformers instead of reading what it said (`python -m tests.golden`).
Does not cover: models, meshes and peers for tests (tests/support).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

# Before anything imports huggingface_hub, which reads it once. Child processes inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import psutil
import pytest

from tests.support.syncing import do_without_syncs
from tests.support.thorough import THOROUGH, examples
from tests.support.transformers_answers import KeptAnswers, Source, Theirs

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO_MODEL = REPOSITORY / "models" / "smollm2-135m-instruct"
LEAK_GRACE_SECONDS = 5.0
"""What has been told to end may take this long to do so."""
POLL_SECONDS = 0.05
LONGEST_FILE = "test_smollm2.py"

# Tests start hundreds of programs. Where this is set, each compiles our files anew: 0.8 s of processor time, not 0.4.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts `make test &` deaf to Ctrl-C, and so would be every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline for each example would fail on a busy machine; pytest-timeout guards the whole test.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True, max_examples=examples(100))
hypothesis.settings.load_profile("house")

if not THOROUGH:
    do_without_syncs()

SOURCE = pytest.StashKey[Source]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the option of `python -m tests.golden`."""
    parser.addoption("--ask-transformers", metavar="DIRECTORY", help="ask it, and write what it says; needs torch")


def pytest_configure(config: pytest.Config) -> None:
    """Open the answers of transformers, or transformers."""
    directory = config.getoption("--ask-transformers")
    if directory is None:
        config.stash[SOURCE] = KeptAnswers()
        return
    from tests.golden.asking import AskedAnswers

    asked = AskedAnswers(Path(directory))
    config.stash[SOURCE] = asked
    config.add_cleanup(asked.write)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the file that lasts longest, so that of several files at a time it is not the last to end.

    When transformers is asked, only the tests that ask it run.
    """
    items.sort(key=lambda item: item.path.name != LONGEST_FILE)
    if config.getoption("--ask-transformers") is not None:
        items[:] = [item for item in items if "theirs" in getattr(item, "fixturenames", ())]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage meanwhile, nor in what is found: thousands of tests, and all of them stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class LeakWatch:
    """What this process holds beyond what it held at the start, and after which test each was first seen."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._first_seen: dict[str, str] = {}
        self._sockets: frozenset[str] | None = None
        self._ports: list[str] = []
        self._at_start = frozenset(self.held())

    def held(self) -> list[str]:
        """Name every child process, thread that would block the exit, and listening port."""
        children = [_process_name(child) for child in self._process.children(recursive=True)] if _has_child() else []
        threads = [
            f"thread '{thread.name}' ({thread.ident})"
            for thread in threading.enumerate()
            if thread is not threading.main_thread() and not thread.daemon
        ]
        return children + threads + self._listening_ports()

    def _listening_ports(self) -> list[str]:
        """Name the ports; they are those of before where the sockets are, which is known much sooner."""
        sockets = _sockets()
        if sockets is None or sockets != self._sockets:
            self._sockets = sockets
            self._ports = [
                f"listening port {connection.laddr.port}"
                for connection in self._process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            ]
        return self._ports

    def leaks(self) -> list[str]:
        """Name what is held now and was not at the start."""
        return [name for name in self.held() if name not in self._at_start]

    def note(self, test_name: str) -> None:
        """Remember `test_name` as the first after which something new was held."""
        for name in self.leaks():
            self._first_seen.setdefault(name, test_name)

    def leaks_after_grace(self) -> list[str]:
        """Wait until nothing is left or the grace is over; name what is left and where it was first seen."""
        deadline = time.monotonic() + LEAK_GRACE_SECONDS
        gc.collect()
        self._sockets = None  # one that was there may listen by now
        while (names := self.leaks()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return [f"{name}, first seen after {self._first_seen.get(name, 'the last test')}" for name in names]


def _has_child() -> bool:
    """Tell whether this process has a child, one that has ended and was not waited for too.

    Asked after each of thousands of tests, of which few have one: a list of all processes takes milliseconds.
    """
    if sys.platform == "darwin":  # has no waitid before Python 3.13
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _sockets() -> frozenset[str] | None:
    """Return this process' sockets, by names that no other one has; None where the system does not tell."""
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return None
    found = []
    for descriptor in descriptors:
        with suppress(OSError):  # it was for the list itself, or a thread has closed it since
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return frozenset(name for name in found if name.startswith("socket:"))


def _process_name(child: psutil.Process) -> str:
    try:
        return f"process {child.pid}: {' '.join(child.cmdline()) or child.name()}"
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return f"process {child.pid}: ended, but nobody has waited for it"


@pytest.fixture(scope="session", autouse=True)
def leak_watch() -> Iterator[LeakWatch]:
    """Fail the run when something outlives it. Set up first and so torn down last, after every other fixture."""
    watch = LeakWatch()
    yield watch
    leaks = watch.leaks_after_grace()
    if leaks:
        pytest.fail("the tests left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True)
def _leaks_have_a_name(leak_watch: LeakWatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Note what is new after each test, its own fixtures torn down."""
    yield
    leak_watch.note(request.node.nodeid)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Give every in-process test one torch thread, whatever the test before it set; never import torch for that."""
    torch = sys.modules.get("torch")
    set_thread_count: Callable[[int], None] | None = getattr(torch, "set_num_threads", None)
    if set_thread_count is not None:
        set_thread_count(1)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """Return the demo model's directory."""
    if not (DEMO_MODEL / "model.gguf").is_file():
        pytest.fail(f"no demo model in {DEMO_MODEL}; run `make model` first", pytrace=False)
    return DEMO_MODEL


@pytest.fixture
def theirs(request: pytest.FixtureRequest) -> Theirs:
    """Return whom to ask what transformers says."""
    file = request.path.relative_to(REPOSITORY / "tests").with_suffix(".json")
    return Theirs(request.config.stash[SOURCE], str(file), request.node.name)

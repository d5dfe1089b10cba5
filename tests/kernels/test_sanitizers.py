"""Do the kernels keep to their memory, to what C defines, and to one thread at a time?

Covers: builds with gcc's sanitizers for addresses, undefined behaviour and threads, under recorded calls of every
function and under the kernels' own tests; that each build would notice a fault.
Does not cover: whether the numbers are right, beyond being those of the usual build.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.native.library import LEAST_THREADED_BYTES, Kernels, load
from tests.support.all_calls import record
from tests.support.other_builds import OtherBuild
from tests.support.recorded_calls import Calls, Place
from tests.support.toolchains import ADDRESS_AND_UNDEFINED, GCC, THREAD, sanitizer_prefix

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CALLERS = 3
KERNEL_TESTS = (
    "tests/property/test_matmul.py", "tests/property/test_row_steps.py", "tests/property/test_cached_products.py",
    "tests/property/test_many_rows.py", "tests/property/test_stored_numbers.py",
    "tests/property/test_encoded_products.py", "tests/property/test_rounded_products.py",
    "tests/property/test_encoded_tiles.py", "tests/unit/test_encodings.py",
    "tests/unit/test_cached_reads.py", "tests/unit/test_native_library.py", "tests/contract/test_whole_layers.py",
    "tests/contract/test_cached_rounds.py", "tests/contract/test_exchange.py", "tests/contract/test_round_in_c.py",
    "tests/contract/test_blocks_in_c.py", "tests/contract/test_sweeps_in_c.py", "tests/property/test_round_table.py",
    "tests/property/test_choices.py",
)  # fmt: skip
BUILDS_ANOTHER = "built_in_one_step"
"""One of them takes long to build a library that has no sanitizer."""
TESTS_LIMIT_SECONDS = 400.0
PRELOADED = ("libasan.so", "libubsan.so", "libstdc++.so")
"""Python is none of gcc's programs, so these have to be there before it is; the last one for torch's exceptions."""

kernels = load()
pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")


def build_with(flags: tuple[str, ...], directory: Path) -> OtherBuild:
    """Build with a sanitizer, or skip."""
    prefix = sanitizer_prefix(flags)
    if prefix is None:
        pytest.skip(f"gcc builds no program with {flags[0]} that runs here; on Debian: apt-get install {GCC.packages}")
    return OtherBuild(GCC, directory, flags, prefix)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> OtherBuild:
    """Return the build that knows addresses and undefined behaviour."""
    return build_with(ADDRESS_AND_UNDEFINED, tmp_path_factory.mktemp("addresses"))


@pytest.fixture(scope="module")
def calls() -> Calls:
    """Return many calls of every function."""
    return record()


@pytest.fixture(scope="module")
def recording(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where they are written down."""
    path = tmp_path_factory.mktemp("calls") / "recording"
    calls.write(path)
    return path


def computes_the_same(build: OtherBuild, usual: Kernels, calls: Calls, recording: Path, variant: str) -> bool:
    """Tell whether several callers at once, who change the thread count meanwhile, get the bits of one alone."""
    assert usual.functions is not None
    expected = calls.replay(usual.functions, recording)
    usual.set_thread_count(1, LEAST_THREADED_BYTES)
    found = build.replay(calls, recording, variant, CALLERS)
    return [calls.differences(results, expected) for results in found] == [[]] * CALLERS


@pytest.mark.parametrize("variant", kernels.variants)
def test_no_call_leaves_its_memory_or_what_c_defines(
    checked: OtherBuild, calls: Calls, recording: Path, variant: str
) -> None:
    """Buffers end where their numbers do; rows, gates and scores that are not finite are among them."""
    assert computes_the_same(checked, kernels, calls, recording, variant)


def test_threads_share_nothing_without_guarding_it(calls: Calls, recording: Path, tmp_path: Path) -> None:
    """Workers, callers that come while others compute, and settings that change meanwhile."""
    build = build_with(THREAD, tmp_path)
    assert computes_the_same(build, kernels, calls, recording, kernels.variants[-1])


def fault(build: OtherBuild, directory: Path, *arguments: Place | float | None, memory: bytes) -> str:
    """Return what a program says that sums some memory."""
    calls = Calls()
    calls.put(memory)
    calls.call("sum", *arguments)
    calls.write(directory / "recording")
    done = build.run(directory / "recording", directory / "results", kernels.variants[-1], 1)
    assert done.returncode != 0
    return done.stderr


def test_a_fault_would_be_noticed(checked: OtherBuild, tmp_path: Path) -> None:
    """A number beyond a buffer's end, and one where none may lie."""
    memory = bytes(4 * 20)
    assert "heap-buffer-overflow" in fault(checked, tmp_path, Place(0), 21, memory=memory)
    assert "misaligned address" in fault(checked, tmp_path, Place(0, 1), 19, memory=memory)


def preloaded() -> dict[str, str]:
    """Return the environment of a Python that can load the checked library."""
    paths = [
        subprocess.run(
            [*GCC.compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in PRELOADED
    ]
    return {
        **os.environ,
        "LD_PRELOAD": ":".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep much until the very end
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # else small objects of Python have no borders that could be watched
    }


@pytest.mark.timeout(TESTS_LIMIT_SECONDS + 60)
def test_the_kernels_tests_hold_with_the_checked_library(checked: OtherBuild) -> None:
    """All the shapes that they make up, as Python calls the library."""
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.support.other_library", f"--library={checked.library}",
            "-p", "no:cacheprovider", "-k", f"not {BUILDS_ANOTHER}", *KERNEL_TESTS,
        ],
        cwd=REPOSITORY, env=preloaded(), capture_output=True, text=True, timeout=TESTS_LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"kernels from {checked.library}" in done.stdout


def test_python_would_notice_a_fault_too(checked: OtherBuild) -> None:
    """Through the very same environment and library."""
    program = (
        "import ctypes, sys; from pathlib import Path; from common.native.library import load\n"
        "memory = ctypes.create_string_buffer(80)\n"
        "load(Path(sys.argv[1])).sum(ctypes.addressof(memory), 21)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(checked.library)],
        cwd=REPOSITORY, env=preloaded(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr

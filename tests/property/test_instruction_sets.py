"""Do all instruction sets compute the same bits, those of other processors too?

Covers: every function of the library, on what this processor has and, under an emulator, on 64-bit Arm (NEON); a mesh
may have both.
Does not cover: whether the numbers are right (test_matmul.py, test_row_steps.py, test_cached_products.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.native.library import Kernels, load
from tests.support.all_calls import outcomes, record
from tests.support.other_builds import OtherBuild, kept_build
from tests.support.recorded_calls import Calls
from tests.support.thorough import THOROUGH
from tests.support.toolchains import ARM, ARM_GCC, HERE

EXPECTED_OUTCOMES = {
    "multiply": {0}, "multiply_matrix": {0}, "feed_forward": {0}, "attention": {0}, "normalize": {0},
    "widen": {0}, "narrow": {0}, "pack_blocks": {0}, "unpack": {0}, "unpack_output": {0},
    "round_rows": {0}, "unround_rows": {0}, "choose_tokens": {0}, "use_activations": {0},
    "add": {0, 1},  # some sums are not finite, which is told
    "run_layers": {2},  # so many layers
    "blocks_not_finite": {-1, 2},  # no row, or which one
}  # fmt: skip

QUICK = () if THOROUGH else ("-Og",)
"""Flags of the build for another processor, of which most of the time is optimizing; no flag of ours changes a sum."""
EMULATED_SHARE = 1.0 if THOROUGH else 0.1
"""Of the calls of each kind; every function, whole layers and all that is refused are among them either way."""


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    """Return the library, which the whole process shares, and leave it as it was."""
    loaded = load()
    if loaded.functions is None:
        pytest.skip(loaded.reason)
    yield loaded
    loaded.choose(loaded.variant)
    loaded.set_thread_count(1)


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


def test_every_function_does_what_it_is_asked(kernels: Kernels, calls: Calls, recording: Path) -> None:
    """Results of calls that were refused would be the same everywhere."""
    assert kernels.functions is not None
    assert outcomes(calls, calls.replay(kernels.functions, recording).answers) == EXPECTED_OUTCOMES


def test_the_instruction_sets_of_this_processor_compute_the_same_bits(
    kernels: Kernels, calls: Calls, recording: Path
) -> None:
    """Every byte that a call may write to, and what it answers."""
    assert kernels.functions is not None
    found = []
    for variant in kernels.variants:
        kernels.choose(variant)
        found.append(calls.replay(kernels.functions, recording))
    assert [calls.differences(results, found[0]) for results in found] == [[] for _ in found]


@pytest.mark.skipif(HERE == ARM, reason="this processor is a 64-bit Arm: every test here runs NEON")
@pytest.mark.skipif(bool(ARM_GCC.missing()), reason=f"NEON is not run: {ARM_GCC.missing()}")
def test_a_64_bit_arm_computes_the_same_bits(kernels: Kernels, tmp_path: Path) -> None:
    """Devices of a mesh may differ; the answer does not."""
    assert kernels.functions is not None
    calls, recording = record(EMULATED_SHARE), tmp_path / "recording"
    calls.write(recording)
    build = OtherBuild(ARM_GCC, tmp_path, QUICK) if THOROUGH else kept_build(ARM_GCC, QUICK)
    expected = calls.replay(kernels.functions, recording)
    assert outcomes(calls, expected.answers) == EXPECTED_OUTCOMES
    for variant in ("neon", "neon_dotprod"):
        (found,) = build.replay(calls, recording, variant)
        assert calls.differences(found, expected) == [], variant

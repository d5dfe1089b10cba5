"""Do our own steps between products agree with float64 on every instruction set, and does a row stay alone?

Covers: sums of parts, norms, gates and attention, each by kernels and the first two without; tails of every length.
Does not cover: the same over backends (tests/contract/test_backends.py), products (test_matmul.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute import matmul
from common.compute.matmul import kernels
from common.compute.native_backend import NativeBackend
from common.compute.row_steps import add_and_normalize, add_parts
from common.native.library import absent
from tests.support.thorough import examples
from tests.support.tile_cases import ACTIVATIONS, FIRST_KV_HEAD, LAYER, AttentionCase, FfnCase, random

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")
EPSILON = 1e-5
SIZES = st.integers(1, 40).map(lambda half: 2 * half)
NOT_FINITE = [np.nan, -np.nan, np.inf, -np.inf]


@pytest.fixture(params=kernels.variants, scope="module", autouse=True)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set that this processor has."""
    kernels.choose(request.param)
    yield request.param
    kernels.choose(kernels.variant)


@pytest.fixture(params=["kernels", "numpy"])
def without_kernels_too(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test without kernels as well, as a machine does that computes with torch alone."""
    if request.param == "numpy":
        monkeypatch.setattr(matmul, "kernels", absent("a test wants none"))


cases = st.builds(
    lambda first, count, has_all, **numbers: AttentionCase(
        runs=((first, count),), has_bias=has_all, has_norms=has_all, **numbers
    ),
    kv_count=st.integers(1, 3), group=st.integers(1, 20), head_size=SIZES, first=st.integers(0, 150),
    count=st.integers(1, 5) | st.sampled_from([33, 70]), window=st.integers(0, 90), has_all=st.booleans(),
)  # fmt: skip


@given(cases)
@settings(max_examples=examples(40), deadline=None)
def test_attention_is_that_of_float64_and_writes_only_its_own_places(case: AttentionCase) -> None:
    """Bias, norms, rotation, grouped heads, sliding windows; the rest of the store stays as it is."""
    backend = NativeBackend()
    (store,) = case.stores(backend)
    part = case.run(backend, [store])
    expected, (expected_store,) = case.expected()
    np.testing.assert_allclose(part, expected, atol=2e-4, rtol=2e-5)
    np.testing.assert_allclose(store.array, expected_store, atol=3e-5, rtol=3e-5)
    (first, count), before = case.runs[0], case.before(0)
    own = (LAYER, slice(None), slice(FIRST_KV_HEAD, None), slice(first, first + count))
    before[own] = store.array[own]
    assert np.array_equal(store.array, before)


@given(cases, st.integers(1, 40))
@settings(max_examples=examples(25), deadline=None)
def test_a_row_is_the_same_bits_alone_and_in_company(case: AttentionCase, at_once: int) -> None:
    """A prompt cut into parts, or row after row, gives what all of it at once gives."""
    backend = NativeBackend()
    (together,), (apart,) = case.stores(backend), case.stores(backend)
    whole = case.run(backend, [together])
    parts = [
        case.run(backend, [apart], only=slice(first, min(first + at_once, case.row_count)))
        for first in range(0, case.row_count, at_once)
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(apart.array, together.array)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(row_count=st.integers(1, 40), columns=st.integers(1, 300), scale=st.floats(0.1, 30))
@settings(max_examples=examples(25), deadline=None)
def test_a_gated_row_is_that_of_float64_and_the_same_bits_alone(
    activation: str, row_count: int, columns: int, scale: float
) -> None:
    """Every tail of columns, also where e^x leaves the range of float32."""
    backend = NativeBackend()
    case = FfnCase(activation=activation, row_count=row_count, columns=columns, scale=scale)
    part, expected = case.run(backend), case.expected()
    np.testing.assert_allclose(part, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-4)
    alone = [case.run(backend, case.rows[row : row + 1]) for row in range(row_count)]
    assert np.array_equal(np.concatenate(alone), part)


@pytest.mark.parametrize("wrong", NOT_FINITE)
@pytest.mark.parametrize("row_count", [4, 41])
def test_a_row_that_is_not_finite_spoils_no_other(row_count: int, wrong: float) -> None:
    """Whatever e^x makes of it; a hostile or broken model must not reach another sequence."""
    backend, others = NativeBackend(), [row for row in range(row_count) if row != 2]
    ffn = FfnCase(row_count=row_count, columns=17)
    expected, rows = ffn.run(backend), ffn.rows
    rows[2, 5] = wrong
    part = ffn.run(backend, rows)
    assert not np.isfinite(part[2]).any()
    assert np.array_equal(part[others], expected[others])
    attention = AttentionCase(kv_count=2, group=3, head_size=10, runs=((70, row_count),), has_bias=True)
    expected = attention.run(backend, attention.stores(backend))
    spoiled = attention.rows
    spoiled[-1] = wrong
    part = attention.run(backend, attention.stores(backend), spoiled)
    assert not np.isfinite(part[-1]).any()
    assert np.array_equal(part[:-1], expected[:-1])


@pytest.mark.usefixtures("without_kernels_too")
@pytest.mark.parametrize(("part_count", "shape"), [(1, (1, 1)), (2, (3, 64)), (5, (12, 77)), (9, (40, 700))])
def test_parts_are_added_in_their_order_bit_for_bit(part_count: int, shape: tuple[int, int]) -> None:
    """One after the other; what is not finite is told, and no part is changed."""
    parts = [random(*shape, seed=part) for part in range(part_count)]
    total, is_finite = add_parts(parts)
    expected = parts[0].copy()
    for part in parts[1:]:
        expected += part
    assert np.array_equal(total, expected)
    assert is_finite
    assert all(np.array_equal(part, random(*shape, seed=seed)) for seed, part in enumerate(parts))
    for wrong in NOT_FINITE:
        for place in (0, expected.size // 2, -1):
            spoiled = [*parts[:-1], parts[-1].copy()]
            spoiled[-1].reshape(-1)[place] = wrong
            assert not add_parts(spoiled)[1]


@pytest.mark.usefixtures("without_kernels_too")
@pytest.mark.parametrize("has_addend", [False, True])
@pytest.mark.parametrize(("row_count", "width"), [(1, 1), (1, 576), (3, 77), (100, 700)])
def test_the_norm_is_that_of_float64(row_count: int, width: int, has_addend: bool) -> None:
    """What is added stays added; where it is to be written, it is, to the same bits, whatever the company."""
    hidden, weight = random(row_count, width, seed=1), random(width, seed=2)
    addend = random(row_count, width, seed=3) if has_addend else None
    expected_hidden = hidden + addend if addend is not None else hidden.copy()
    normed = add_and_normalize(hidden, addend, weight, EPSILON)
    assert np.array_equal(hidden, expected_hidden)
    exact = hidden.astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + EPSILON) * weight
    assert normed.dtype == np.float32
    np.testing.assert_allclose(normed, expected, atol=1e-5, rtol=1e-5)
    place = np.full((row_count, width), np.nan, np.float32)
    assert add_and_normalize(hidden, None, weight, EPSILON, place) is place
    assert np.array_equal(place, normed)
    alone = [add_and_normalize(hidden[row : row + 1], None, weight, EPSILON) for row in range(row_count)]
    assert np.array_equal(np.concatenate(alone), normed)


def test_every_instruction_set_gives_the_same_bits() -> None:
    """Devices of a mesh may differ; their steps do not."""
    backend, results = NativeBackend(), []
    attention = AttentionCase(
        kv_count=2, group=3, head_size=64, runs=((100, 3), (0, 50)), has_bias=True, has_norms=True, dtype="bfloat16"
    )
    for name in kernels.variants:
        kernels.choose(name)
        stores, hidden = attention.stores(backend), random(3, 130, seed=1)
        found = [attention.run(backend, stores), *[store.array for store in stores]]
        found.append(add_and_normalize(hidden, None, random(130, seed=2), EPSILON))
        found += [FfnCase(activation=name, row_count=3, columns=65).run(backend) for name in ACTIVATIONS]
        results.append(found)
    for others in results[1:]:
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(results[0], others, strict=True))

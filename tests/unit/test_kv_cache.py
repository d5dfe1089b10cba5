"""Does the KV cache keep its budget, and does a sequence know how far it was written, truncated where told?

Covers: shardnode/work/kv_cache.py, its memory and places in the native backend. Does not cover: what is written there
(tests/contract/test_backends.py), sessions (tests/contract).
"""

from __future__ import annotations

import mmap
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.compute.native_backend import NativeBackend
from common.errors import InputError, KvBudgetExceeded, ProtocolError
from common.model.model_spec import ModelSpec, RopeSpec
from shardnode.work.kv_cache import KvCache

SPEC = ModelSpec(
    family="llama", hidden_size=8, layer_count=3, query_head_count=4, kv_head_count=2, head_size=4, ffn_size=8,
    vocab_size=10, max_position_count=32, norm_epsilon=1e-5, rope=RopeSpec(),
)  # fmt: skip
KV_HEADS = 2
POSITION_BYTES = 3 * 2 * KV_HEADS * 4 * 4
"""Layers, keys and values, heads, head size, float32."""


def make_cache(budget_bytes: int = 100 * POSITION_BYTES, kv_heads: int = KV_HEADS) -> KvCache:
    """Return an empty cache."""
    return KvCache(SPEC, kv_heads, budget_bytes, NativeBackend())


def test_a_sequence_reserves_its_whole_capacity_and_gives_it_back() -> None:
    """What is counted is positions x layers x heads x head size x 4 bytes, twice."""
    cache = make_cache()
    assert cache.sequence_bytes(10) == 10 * POSITION_BYTES
    first, second = cache.open(10), cache.open(5)
    assert (cache.reserved_bytes, cache.sequence_count) == (15 * POSITION_BYTES, 2)
    cache.close(first)
    assert (cache.reserved_bytes, cache.sequence_count) == (5 * POSITION_BYTES, 1)
    cache.close(second)
    assert (cache.reserved_bytes, cache.sequence_count) == (0, 0)


def test_the_budget_is_used_to_its_last_byte_and_never_exceeded() -> None:
    """What fits exactly is taken; one position more is refused with both ways out, and costs nothing."""
    cache = make_cache(10 * POSITION_BYTES)
    kept = cache.open(7)
    with pytest.raises(KvBudgetExceeded, match=r"4 positions need .*\(--length\).* --kv-budget-bytes"):
        cache.open(4)
    cache.close(cache.open(3))
    cache.close(kept)
    cache.close(cache.open(10))
    assert (cache.reserved_bytes, cache.sequence_count) == (0, 0)


@pytest.mark.parametrize("capacity", [0, -1, -(2**31), 33, 2**31 - 1])
def test_a_capacity_that_the_model_does_not_have_is_refused(capacity: int) -> None:
    """From one position to the model's context, whatever the budget is."""
    cache = make_cache(1 << 62)
    with pytest.raises(InputError, match="from 1 to 32"):
        cache.open(capacity)
    assert cache.open(32).capacity == 32


def test_a_rank_without_heads_holds_nothing() -> None:
    """Its sequences are as many as anybody's and take no bytes."""
    cache = make_cache(1, kv_heads=0)
    sequence = cache.open(32)
    assert (cache.reserved_bytes, cache.sequence_count) == (0, 1)
    cache.close(sequence)


def test_memory_that_the_system_refuses_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed allocation the budget is what it was."""
    cache = make_cache()

    def refuse(*arguments: object) -> None:
        raise OSError("not enough memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(KvBudgetExceeded, match="this device has not so much memory free"):
        cache.open(10)
    assert (cache.reserved_bytes, cache.sequence_count) == (0, 0)


def test_many_threads_never_reserve_more_than_the_budget() -> None:
    """Sessions open and close at once; every byte is counted once."""
    cache = make_cache(20 * POSITION_BYTES)
    excess: list[int] = []

    def churn() -> None:
        for _ in range(300):
            try:
                sequence = cache.open(8)
            except KvBudgetExceeded:
                continue
            if cache.reserved_bytes > cache.budget_bytes:
                excess.append(cache.reserved_bytes)
            cache.close(sequence)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not excess
    assert (cache.reserved_bytes, cache.sequence_count) == (0, 0)


def test_places_are_those_of_the_layer_and_the_head() -> None:
    """[layer, key or value, kv_head, position, head_size], one after another, zeros until they are written."""
    store = make_cache().open(8).store
    assert store.array.shape == (3, 2, KV_HEADS, 8, 4)
    assert not store.array.any()
    for layer in range(3):
        for head in range(KV_HEADS):
            keys, values = store.places(layer, head)
            assert keys == store.array[layer, 0, head].ctypes.data
            assert values == store.array[layer, 1, head].ctypes.data
    assert store.head_pitch * 4 == store.array.strides[2]


def test_a_lower_position_truncates() -> None:
    """Rows at a position that is cached already replace it, and what came after is forgotten."""
    sequence = make_cache().open(8)
    sequence.extend(0, 0, 6)
    sequence.extend(0, 2, 1)
    with pytest.raises(ProtocolError, match="position 4 of layer 0 came after 3"):
        sequence.extend(0, 4, 1)


def test_each_layer_has_its_own_length() -> None:
    """A round is one layer: the others are extended when their turn comes."""
    sequence = make_cache().open(8)
    sequence.extend(0, 0, 4)
    with pytest.raises(ProtocolError, match="position 4 of layer 1 came after 0"):
        sequence.extend(1, 4, 1)


@given(steps=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), max_size=20))
def test_a_sequence_never_has_gaps_or_more_than_its_capacity(steps: list[tuple[int, int]]) -> None:
    """Rows are taken exactly when they start at most at the length and end at most at the capacity."""
    sequence = make_cache().open(10)
    length = 0
    for first, count in steps:
        if first > length:
            with pytest.raises(ProtocolError):
                sequence.extend(0, first, count)
        elif first + count > 10:
            with pytest.raises(InputError, match="beyond the 10 reserved"):
                sequence.extend(0, first, count)
        else:
            sequence.extend(0, first, count)
            length = first + count

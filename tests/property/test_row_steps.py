"""Do our own steps between products agree with torch in float64, on every instruction set, and do rows stay alone?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from common.compute.matmul import kernels
from common.compute.row_steps import add_and_normalize, add_parts, address, can_add_up, can_step
from common.compute.tile_products import (
    CachedHeads,
    attention,
    can_attend,
    feed_forward,
    segment,
)
from common.native.library import AttentionTile, FfnTile, HeadTile, Outcome
from tests.support.native_weights import matrix_of

pytestmark = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")
EPSILON = 1e-5
ITEM_BYTES = 4


@pytest.fixture(params=kernels.variants, scope="module", autouse=True)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with each instruction set that this processor has."""
    kernels.choose(request.param)
    yield request.param
    kernels.choose(kernels.variant)


def random(*shape: int, seed: int) -> torch.Tensor:
    """Return float32 noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """Rows of one sequence after others, with everything an attention tile may have."""

    def __init__(self, kv: int, group: int, size: int, rows: int, first: int, window: int, has_all: bool) -> None:
        self.kv, self.group, self.size, self.rows, self.first, self.window = kv, group, size, rows, first, window
        width = (kv * group + 2 * kv) * size
        self.projected = random(rows, width, seed=1)
        self.bias = random(width, seed=2) if has_all else None
        self.norms = (1 + random(size, seed=3), 1 + random(size, seed=4)) if has_all else (None, None)
        angles = random(rows, 1, size // 2, seed=5).repeat(1, 1, 2)
        self.cosine, self.sine = angles.cos(), angles.sin()
        self.capacity = first + rows + 3
        self.store = random(2, kv + 1, self.capacity, size, seed=6)  # the tile's heads begin at 1

    def run(self, store: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Attend with the rows [start, stop); keys and values go into `store`."""
        half = self.size // 2
        sine = torch.cat((-self.sine[..., :half], self.sine[..., half:]), dim=-1)
        pitch = self.capacity * self.size
        keys = store.data_ptr() + pitch * ITEM_BYTES
        width, context_width = self.projected.shape[1], self.kv * self.group * self.size
        qkv, output = torch.eye(width), torch.eye(context_width, width)  # products with which change nothing
        tile = HeadTile(
            AttentionTile(matrix_of(qkv), matrix_of(output)), address(self.bias), *map(address, self.norms),
            self.kv * self.group, self.kv, 1,
        )  # fmt: skip
        own = segment(
            stop - start, self.first + start, tile,
            CachedHeads(keys=keys, values=keys + (self.kv + 1) * pitch * ITEM_BYTES, head_pitch=pitch),
            self.cosine[start:stop], sine[start:stop].contiguous(), norm_epsilon=EPSILON, sliding_window=self.window,
        )  # fmt: skip
        part, outcome = attention(self.projected[start:stop], tile.matrices, [own])
        assert outcome is Outcome.DONE
        is_finite = self.projected[start:stop].isfinite().all(dim=1)  # zeros times others are no zeros
        assert not part[is_finite, context_width:].any()
        return part[:, :context_width]

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return context and stored keys and values, in float64 by torch."""
        heads = (self.projected.double() + (0 if self.bias is None else self.bias.double())).view(
            self.rows, -1, self.size
        )
        turned = heads[:, : self.kv * (self.group + 1)]
        queries, keys = turned[:, : self.kv * self.group], turned[:, self.kv * self.group :]
        if self.norms[0] is not None and self.norms[1] is not None:
            queries = functional.rms_norm(queries, (self.size,), self.norms[0].double(), EPSILON)
            keys = functional.rms_norm(keys, (self.size,), self.norms[1].double(), EPSILON)
        queries, keys = self._rotated(queries), self._rotated(keys)
        store = self.store.double().clone()
        new = slice(self.first, self.first + self.rows)
        store[0, 1:, new], store[1, 1:, new] = keys.transpose(0, 1), heads[:, -self.kv :].transpose(0, 1)
        positions = torch.arange(self.first, self.first + self.rows)[:, None]
        columns = torch.arange(self.first + self.rows)[None]
        mask = columns <= positions
        if self.window:
            mask &= columns > positions - self.window
        length = self.first + self.rows
        context = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None], store[0, None, 1:, :length], store[1, None, 1:, :length], attn_mask=mask,
            enable_gqa=True,
        )  # fmt: skip
        return context[0].transpose(0, 1).reshape(self.rows, -1), store

    def _rotated(self, heads: torch.Tensor) -> torch.Tensor:
        first, second = heads.chunk(2, dim=-1)
        return heads * self.cosine.double() + torch.cat((-second, first), dim=-1) * self.sine.double()


cases = st.builds(
    Case, kv=st.integers(1, 3), group=st.integers(1, 20), size=st.integers(1, 40).map(lambda half: 2 * half),
    rows=st.integers(1, 5), first=st.integers(0, 150), window=st.integers(0, 90), has_all=st.booleans(),
)  # fmt: skip


@given(cases)
@settings(max_examples=60, deadline=None)
def test_attention_is_that_of_torch_and_writes_only_its_own_places(case: Case) -> None:
    """Bias, norms, rotation, grouped heads, sliding windows; the rest of the cache stays as it is."""
    store = case.store.clone()
    context = case.run(store, 0, case.rows)
    expected, expected_store = case.expected()
    torch.testing.assert_close(context.double(), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(store.double(), expected_store, atol=2e-5, rtol=2e-5)
    new = slice(case.first, case.first + case.rows)
    untouched = torch.ones_like(store, dtype=torch.bool)
    untouched[:, 1:, new] = False
    assert torch.equal(store[untouched], case.store[untouched])


@given(cases)
@settings(max_examples=20, deadline=None)
def test_a_row_is_the_same_bits_alone_and_in_company(case: Case) -> None:
    """One row after the other gives what all together give."""
    together, alone = case.store.clone(), case.store.clone()
    context = case.run(together, 0, case.rows)
    rows = [case.run(alone, row, row + 1) for row in range(case.rows)]
    assert torch.equal(torch.cat(rows), context)
    assert torch.equal(alone, together)


def gate(both: torch.Tensor) -> torch.Tensor:
    """Return what an FFN tile makes of its first product."""
    width = both.shape[1]
    gate_up, down = torch.eye(width), torch.eye(width // 2, width)
    part, outcome = feed_forward(both, FfnTile(matrix_of(gate_up), matrix_of(down), None, 0))
    assert outcome is Outcome.DONE
    return part[:, : width // 2]


@given(st.integers(1, 32), st.integers(1, 300), st.floats(0.1, 200))
@settings(deadline=None)
def test_the_gate_is_that_of_torch(row_count: int, columns: int, scale: float) -> None:
    """silu of the first half times the second, also where e^x leaves the range of float32."""
    both = random(row_count, 2 * columns, seed=columns) * scale
    first, second = both.double().chunk(2, dim=-1)
    torch.testing.assert_close(gate(both).double(), functional.silu(first) * second, atol=1e-30, rtol=3e-6)


@pytest.mark.parametrize("wrong", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_spoils_no_other(wrong: float) -> None:
    """Whatever e^x makes of it; a hostile or broken model must not reach another sequence."""
    both = random(4, 34, seed=1)
    spoiled = both.clone()
    spoiled[2, 5] = wrong
    assert not gate(spoiled)[2].isfinite().any()
    assert torch.equal(gate(spoiled)[[0, 1, 3]], gate(both)[[0, 1, 3]])
    case = Case(kv=2, group=3, size=10, rows=3, first=70, window=0, has_all=True)
    expected = case.run(case.store.clone(), 0, 3)
    case.projected[2] = wrong
    context = case.run(case.store.clone(), 0, 3)
    assert not context[2].isfinite().any()
    assert torch.equal(context[:2], expected[:2])


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 700))
def test_parts_are_added_in_their_order_bit_for_bit(part_count: int, row_count: int, width: int) -> None:
    """As torch adds one after the other; what is not finite is told."""
    parts = [random(row_count, width, seed=part) for part in range(part_count)]
    total, is_finite = add_parts(parts)
    expected = parts[0].clone()
    for part in parts[1:]:
        expected += part
    assert torch.equal(total, expected)
    assert is_finite
    for wrong in (torch.nan, torch.inf, -torch.inf):
        for place in (0, row_count * width // 2, -1):
            spoiled = [*parts[:-1], parts[-1].clone()]
            spoiled[-1].view(-1)[place] = wrong
            assert not add_parts(spoiled)[1]


@given(st.integers(1, 100), st.integers(1, 700), st.booleans())
def test_the_norm_is_that_of_torch(row_count: int, width: int, has_addend: bool) -> None:
    """What is added stays added; where it is to be written, it is, to the same bits."""
    hidden, weight = random(row_count, width, seed=1), random(width, seed=2)
    addend = random(row_count, width, seed=3) if has_addend else None
    expected_hidden = hidden + addend if addend is not None else hidden.clone()
    normed = add_and_normalize(hidden, addend, weight, EPSILON)
    assert torch.equal(hidden, expected_hidden)
    expected = functional.rms_norm(hidden.double(), (width,), weight.double(), EPSILON)
    torch.testing.assert_close(normed.double(), expected, atol=1e-5, rtol=1e-5)
    place = torch.full((row_count, width), torch.nan)
    assert add_and_normalize(hidden, None, weight, EPSILON, place) is place
    assert torch.equal(place, normed)


def test_every_instruction_set_gives_the_same_bits() -> None:
    """Devices of a mesh may differ; their steps do not."""
    case = Case(kv=2, group=3, size=64, rows=3, first=100, window=0, has_all=True)
    results = []
    for name in kernels.variants:
        kernels.choose(name)
        store = case.store.clone()
        context = case.run(store, 0, 3)
        hidden = random(3, 130, seed=1)
        normed = add_and_normalize(hidden, None, random(130, seed=2), EPSILON)
        results.append((context, store, normed, gate(random(3, 130, seed=3))))
    for others in results[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results[0], others, strict=True))


def test_what_is_not_for_these_steps_is_left_to_torch() -> None:
    """Many rows, and heads larger than any model's; sums and norms take any number of rows."""
    assert can_step(torch.empty(1, 8))
    assert not can_step(torch.empty(33, 8))
    assert can_add_up(torch.empty(33, 8))
    assert can_attend(torch.empty(2, 8), 512)
    assert not can_attend(torch.empty(2, 8), 514)

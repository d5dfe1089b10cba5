"""Does every plan deal out each head and column exactly once, near the ratios, and survive its own JSON?

Covers: common/model/plan.py for any model and any number of nodes. Does not cover: what the shares weigh on disk.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.model.model_spec import ModelSpec, RopeSpec
from common.model.plan import COLUMN_GRAIN, MAX_WORLD_SIZE, Plan, RankShare, make_plan, parse_ratios
from tests.support.random_specs import model_specs, split_strategies
from tests.support.thorough import examples

MODEL = ModelSpec(
    family="llama", hidden_size=576, layer_count=30, query_head_count=9, kv_head_count=3, head_size=64, ffn_size=1536,
    vocab_size=49152, max_position_count=8192, norm_epsilon=1e-5, rope=RopeSpec(),
)  # fmt: skip
"""As SmolLM2-135M."""
LARGE_HEADS = replace(MODEL, query_head_count=2, kv_head_count=2, head_size=1024, ffn_size=1600)
"""Whole heads are so large here that a rank with one gets no column at all, and the others unequal ones."""


def attention_rows(spec: ModelSpec, share: RankShare) -> int:
    """Return the weight rows of hidden_size values that a rank's heads take in a layer: q and o, k and v."""
    return 2 * spec.head_size * (share.query_head_count + len(share.kv_heads(spec)))


def rows_of_the_ratios(spec: ModelSpec, plan: Plan, ratios: list[float]) -> list[float]:
    """Return how many weight rows each rank should have: its ratio of them, or what its heads alone take if more.

    Found by bisection for the level at which all rows are dealt, so by another way than the product's.
    """
    floors = [attention_rows(spec, share) for share in plan.shares]
    total = sum(floors) + 3 * spec.ffn_size
    low, high = 0.0, total / min(ratios)
    for _ in range(200):
        level = (low + high) / 2
        dealt = sum(max(floor, level * ratio) for floor, ratio in zip(floors, ratios, strict=True))
        low, high = (level, high) if dealt < total else (low, level)
    return [max(floor, low * ratio) for floor, ratio in zip(floors, ratios, strict=True)]


@given(spec=model_specs(), strategy=split_strategies())
def test_every_head_and_column_belongs_to_exactly_one_rank(spec: ModelSpec, strategy: tuple[str, int]) -> None:
    """The shares of a plan, one after another, are all query heads and all FFN columns."""
    plan = make_plan(spec, *strategy)
    assert plan.world_size == strategy[1]
    heads = [head for s in plan.shares for head in range(s.query_head_start, s.query_head_stop)]
    columns = [column for s in plan.shares for column in range(s.ffn_column_start, s.ffn_column_stop)]
    assert heads == list(range(spec.query_head_count))
    assert columns == list(range(spec.ffn_size))


@given(spec=model_specs(), strategy=split_strategies())
def test_a_rank_has_the_kv_heads_that_its_query_heads_read_and_no_others(
    spec: ModelSpec, strategy: tuple[str, int]
) -> None:
    """Query head q reads KV head q // group_size, whoever holds it."""
    for share in make_plan(spec, *strategy).shares:
        read = sorted({head // spec.group_size for head in range(share.query_head_start, share.query_head_stop)})
        assert list(share.kv_heads(spec)) == read


@given(spec=model_specs(), strategy=split_strategies())
def test_heads_are_dealt_within_one_of_the_ratios(spec: ModelSpec, strategy: tuple[str, int]) -> None:
    """No rank has a whole query head more or less than its exact part."""
    ratios = parse_ratios(*strategy)
    for share, ratio in zip(make_plan(spec, *strategy).shares, ratios, strict=True):
        assert abs(share.query_head_count - spec.query_head_count * ratio / sum(ratios)) < 1 + 1e-9


@settings(max_examples=examples(200))
@example(spec=LARGE_HEADS, strategy=("ratio:1,1,1.5", 3))
@given(spec=model_specs(most_ffn=3000), strategy=split_strategies())
def test_columns_even_out_what_whole_heads_cannot(spec: ModelSpec, strategy: tuple[str, int]) -> None:
    """Attention and FFN together are within two grains of the ratios, unless a rank's heads alone are more."""
    plan = make_plan(spec, *strategy)
    wanted = rows_of_the_ratios(spec, plan, parse_ratios(*strategy))
    for share, target in zip(plan.shares, wanted, strict=True):
        rows = attention_rows(spec, share) + 3 * share.ffn_column_count
        assert abs(rows - target) <= 3 * 2 * COLUMN_GRAIN


@given(spec=model_specs(), strategy=split_strategies())
def test_shares_start_on_a_grain(spec: ModelSpec, strategy: tuple[str, int]) -> None:
    """All ranks but the one with the rest have whole grains of columns, a kernel's vector."""
    counts = [share.ffn_column_count % COLUMN_GRAIN for share in make_plan(spec, *strategy).shares]
    assert sorted(counts)[:-1] == [0] * (len(counts) - 1)


@given(spec=model_specs(), strategy=split_strategies())
def test_a_plan_reads_back_from_its_json(spec: ModelSpec, strategy: tuple[str, int]) -> None:
    """What a manifest holds is the plan, and its digest with it."""
    plan = make_plan(spec, *strategy)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())), spec)
    assert again == plan
    assert again.digest == plan.digest


@given(spec=model_specs(), world_size=st.integers(1, 12), scale=st.sampled_from(["1", "2.5", "1e3"]))
def test_the_digest_is_of_who_holds_what_only(spec: ModelSpec, world_size: int, scale: str) -> None:
    """Equal ratios are the uniform plan under another name; another number of nodes is another plan."""
    uniform = make_plan(spec, "uniform", world_size)
    assert make_plan(spec, "ratio:" + ",".join([scale] * world_size), world_size).digest == uniform.digest
    assert make_plan(spec, "uniform", world_size + 1).digest != uniform.digest


@given(spec=model_specs(), strategy=split_strategies(), data=st.data())
def test_a_plan_with_any_bound_moved_is_refused(
    spec: ModelSpec, strategy: tuple[str, int], data: st.DataObject
) -> None:
    """One number of a plan's JSON changed leaves out, repeats or goes beyond a head or a column."""
    value = make_plan(spec, *strategy).to_json()
    which = data.draw(st.sampled_from(["query_heads", "ffn_columns"]))
    pair = value[which][data.draw(st.integers(0, strategy[1] - 1))]
    pair[data.draw(st.integers(0, 1))] += data.draw(st.integers(-9, 9).filter(bool))
    with pytest.raises(InputError):
        Plan.from_json(value, spec)


@pytest.mark.parametrize(
    "value", [None, [], "uniform", {}, {"strategy": "x"}, {"strategy": "x", "query_heads": [], "ffn_columns": []},
              {"strategy": "x", "query_heads": [[0, 9]], "ffn_columns": []},
              {"strategy": "x", "query_heads": [[0]], "ffn_columns": [[0, 1536]]},
              {"strategy": "x", "query_heads": [["a", "b"]], "ffn_columns": [[0, 1536]]},
              {"strategy": "x", "query_heads": [[0, 12], [12, 9]], "ffn_columns": [[0, 1536], [1536, 1536]]}],
)  # fmt: skip
def test_what_is_no_plan_is_refused(value: object) -> None:
    """A hostile manifest's plan ends in one of our errors."""
    with pytest.raises(InputError):
        Plan.from_json(value, MODEL)


@pytest.mark.parametrize(
    ("strategy", "world_size", "words"),
    [
        ("best", 2, "unknown --split-strategy 'best'"),
        ("ratio", 2, "unknown --split-strategy"),
        ("ratio:", 1, "not a number"),
        ("ratio:1,two", 2, "not a number"),
        ("ratio:3,1,1", 2, "names 3 ratios for 2 nodes"),
        ("ratio:1,0", 2, "above 0"),
        ("ratio:1,-1", 2, "above 0"),
        ("ratio:1,inf", 2, "above 0"),
        ("ratio:1,nan", 2, "above 0"),
        ("uniform", 0, "--world-size is 0"),
        ("uniform", MAX_WORLD_SIZE + 1, "--world-size is 1025"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_by_name(strategy: str, world_size: int, words: str) -> None:
    """A person learns which part of the flag is wrong."""
    with pytest.raises(InputError, match=words):
        make_plan(MODEL, strategy, world_size)


def test_the_demo_model_is_cut_for_every_number_of_nodes() -> None:
    """9 query heads on 1 to 9 nodes leave nobody without a head; 10 nodes leave one, which gets columns only."""
    for world_size in range(1, 10):
        assert all(share.query_head_count for share in make_plan(MODEL, "uniform", world_size).shares)
    counts = [share.query_head_count for share in make_plan(MODEL, "uniform", 10).shares]
    assert counts == [1] * 9 + [0]
    ten = make_plan(MODEL, "uniform", 10).shares[9]
    assert ten.ffn_column_count > make_plan(MODEL, "uniform", 10).shares[0].ffn_column_count
    assert list(ten.kv_heads(MODEL)) == []


def test_a_ratio_of_three_gets_three_times_the_work() -> None:
    """ratio:3,1,1 on the demo model: heads 5, 2, 2 and columns that make rows 3 : 1 : 1."""
    plan = make_plan(MODEL, "ratio:3,1,1", 3)
    assert [share.query_head_count for share in plan.shares] == [5, 2, 2]
    rows = [attention_rows(MODEL, share) + 3 * share.ffn_column_count for share in plan.shares]
    assert rows[0] / sum(rows) == pytest.approx(0.6, abs=0.005)
    assert rows[1] / sum(rows) == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("ratios", ["1e308,1e308", "inf,1", "nan,1", "1e-320,1", "0,1"])
def test_ratios_that_nothing_can_be_dealt_by_are_refused(ratios: str) -> None:
    """Their sum would be no number, and the plan an internal error."""
    with pytest.raises(InputError, match="every ratio must be a number above 0"):
        parse_ratios(f"ratio:{ratios}", 2)

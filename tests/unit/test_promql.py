"""Are all series, labels and ranges of an expression found, and nothing else taken for one?

Covers: tests/support/promql.py. Does not cover: dashboards (test_dashboards.py).
"""

from __future__ import annotations

import pytest

from tests.support.promql import grouping_labels_in, selectors_in, substituted


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", ["up"]),
        ('up{job="x", mesh!="y"} == 0', ["up"]),
        ("sum by (node, le) (rate(a_bucket[5m]))", ["a_bucket"]),
        ("sum(rate(a_total[5m])) by (node) / scalar(sum(rate(b_total[1m])))", ["a_total", "b_total"]),
        ("a and on (mesh, node) b unless ignoring (cause) group_left (x) c", ["a", "b", "c"]),
        ("time() - max(a) > bool 3e5 or vector(0)", ["a"]),
        ('label_replace(a, "node", "$1", "other_name", "(b.*)")', ["a"]),
        ("a offset 5m + a @ end()", ["a", "a"]),
        ("max_over_time((sum(a))[10m:1m])", ["a"]),
        ("mesh:shardmesh_tokens:rate1m > 0 # not_a_series", ["mesh:shardmesh_tokens:rate1m"]),
        ("histogram_quantile(0.95, sum without (instance) (rate(a_bucket[$__rate_interval])))", ["a_bucket"]),
        ("AVG BY (node) (a) * Inf", ["a"]),
    ],
)
def test_what_reads_a_series_is_found(expression: str, names: list[str]) -> None:
    """Functions, aggregations, words, labels, texts and comments are no series."""
    assert [selector.name for selector in selectors_in(expression)] == names


def test_a_selector_tells_its_labels_its_range_and_what_it_stands_in() -> None:
    """A rate of a counter is told from a counter as it is."""
    (rate, plain) = selectors_in('rate(a_total{mesh="$mesh", node=~"x|y"}[5m]) / a_total')
    assert (rate.labels, rate.span, rate.function) == (("mesh", "node"), "5m", "rate")
    assert (plain.labels, plain.span, plain.function) == ((), "", "")


def test_labels_of_every_grouping_and_join_are_found() -> None:
    """by, without, on, ignoring, group_left and group_right list labels."""
    expression = "sum by (a) (x) / on (b) group_left (c) sum without (d) (y) * ignoring (e) group_right () z"
    assert grouping_labels_in(expression) == {"a", "b", "c", "d", "e"}


@pytest.mark.parametrize("expression", ["a{b=", "sum by (a", "a ; b"])
def test_what_is_no_promql_is_an_error(expression: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(ValueError, match=r"bracket|no PromQL"):
        selectors_in(expression)


def test_variables_are_replaced_by_the_longest_name_and_none_is_left() -> None:
    """`$node` is not the beginning of `$node_name`; a variable without a value is an error that names it."""
    values = {"node": "kitchen", "node_name": "attic", "__rate_interval": "1m"}
    assert substituted('a{x="$node_name", y="${node}"}[$__rate_interval]', values) == 'a{x="attic", y="kitchen"}[1m]'
    with pytest.raises(KeyError, match="mesh"):
        substituted('a{mesh="$mesh"}', values)

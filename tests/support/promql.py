"""Which series does a PromQL expression read, and which labels does it match and group by?

Covers: selectors with their matchers, labels of by, without, on, ignoring, group_left and group_right, ranges.
Does not cover: whether the expression is valid (promtool says that), which series there are (series_names.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    |(?P<range>\[[^\]]*\])
    |(?P<number>(?:0x[0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)(?:ms|[smhdwy])?(?:\d+(?:ms|[smhdwy]))*)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>@])""",
    re.VERBOSE,
)
LISTS_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset", "atan2", "start", "end", "inf", "nan", *LISTS_LABELS}
"""What is no series where it is not followed by a bracket. Capitals do not matter, as in PromQL."""


@dataclass(frozen=True)
class Selector:
    """One place where an expression reads series."""

    name: str
    labels: tuple[str, ...] = ()
    """The labels that it matches on, in the order of the text."""
    span: str = ""
    """Its range, `5m` of `[5m]`; empty for an instant."""
    function: str = ""
    """The function or aggregation that it stands in directly, such as rate; empty where there is none."""


def selectors_in(expression: str) -> list[Selector]:
    """Return every selector of the expression, in the order of the text.

    Raises: ValueError: a sign that PromQL does not have, or a bracket that is not closed.
    """
    tokens = _tokens(expression)
    found: list[Selector] = []
    place = 0
    while place < len(tokens):
        kind, text = tokens[place]
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        if kind == "name" and text.lower() in LISTS_LABELS:
            place = _closed(tokens, place + 1, ")") if following == "(" else place + 1
        elif kind == "name" and text.lower() not in WORDS and following.lower() not in ("(", "by", "without"):
            is_alone_in_brackets = place > 1 and tokens[place - 1][1] == "(" and tokens[place - 2][0] == "name"
            function = tokens[place - 2][1] if is_alone_in_brackets else ""
            after = _closed(tokens, place + 1, "}") if following == "{" else place + 1
            span = tokens[after][1][1:-1] if after < len(tokens) and tokens[after][0] == "range" else ""
            found.append(Selector(text, _matched(tokens[place + 1 : after]), span, function))
            place = after
        else:
            place += 1
    return found


def grouping_labels_in(expression: str) -> set[str]:
    """Return the labels that the expression groups or joins by. Raises: see selectors_in."""
    tokens = _tokens(expression)
    labels: set[str] = set()
    for place, (kind, text) in enumerate(tokens[:-1]):
        if kind == "name" and text.lower() in LISTS_LABELS and tokens[place + 1][1] == "(":
            inside = tokens[place + 2 : _closed(tokens, place + 1, ")") - 1]
            labels |= {name for kind, name in inside if kind == "name"}
    return labels


def substituted(expression: str, variables: Mapping[str, str]) -> str:
    """Return the expression as a dashboard would ask it: `$name` and `${name}` replaced, by the longest name.

    Raises: KeyError: a variable that has no value, named.
    """
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: variables[found[1] or found[2]], expression)


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    while place < len(expression):
        found = TOKEN.match(expression, place)
        if found is None:
            raise ValueError(f"no PromQL from '{expression[place : place + 20]}' on in: {expression}")
        if found.lastgroup != "space":
            tokens.append((found.lastgroup or "", found[0]))
        place = found.end()
    return tokens


def _closed(tokens: list[tuple[str, str]], place: int, bracket: str) -> int:
    """Return the place after the bracket that closes the one at `place`; labels and matchers hold no others."""
    for there in range(place + 1, len(tokens)):
        if tokens[there][1] == bracket:
            return there + 1
    raise ValueError(f"a bracket is not closed: {' '.join(text for _, text in tokens)}")


def _matched(matchers: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(text for kind, text in matchers if kind == "name")

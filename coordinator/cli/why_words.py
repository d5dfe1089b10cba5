"""Why is it slow, in one or two sentences: what bounds tokens/s, and what would help most, by how much. Pure.

Does not cover: what was measured (ranks/critical_path.py), what would help (answering/advice.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.wording import counted

MOST_NAMED = 3
NAMED_SHARE = 0.25
"""Of what a cause takes in all: nodes with less are not named for it."""
OLD_SECONDS = 3.0
"""Since the last sweep, or two of its like: then none runs any more, and what is told was so and is not."""
MOST_ADVICE = 2
SAME_SHARE = 0.85
CAUSES: Mapping[str, str] = {
    "disk": "{}'s disk", "processor": "{}'s processor", "core_wait": "{}'s threads, which wait for a core",
    "queue": "{}'s work for others", "link": "{}'s link", "unknown": "{}, whose build is too old to tell why",
}  # fmt: skip
OWN = "the coordinator's own work (messages, norms, head, sampling)"
STARVED = "the coordinator, whose threads wait for a core"
STARVED_SHARE = 0.2


FALLBACK_CAUSES = ("link", "coordinator", "processor", "core_wait")
"""What rounds over gRPC make dearer than rounds in frames."""


def bound_of(parts: Sequence[tuple[str, str, float]], own_starved_share: float = 0.0) -> dict[str, Any]:
    """Return the cause that takes most of a sweep, of which nodes, its share. Args: parts: (node, cause, seconds)."""
    whole = sum(seconds for _, _, seconds in parts) or 1.0
    totals: dict[str, float] = {}
    for _, cause, seconds in parts:
        totals[cause] = totals.get(cause, 0.0) + seconds
    cause = max(totals, key=lambda one: totals[one])
    of_it = sorted(((seconds, node) for node, one, seconds in parts if one == cause), reverse=True)
    named = [node for seconds, node in of_it if node and seconds >= NAMED_SHARE * totals[cause]][:MOST_NAMED]
    text = CAUSES[cause].format(_together(named)) if cause in CAUSES else OWN
    if cause not in CAUSES and own_starved_share >= STARVED_SHARE:
        text = STARVED
    return {"cause": cause, "node_names": named, "share": totals[cause] / whole, "text": text}


def sentences(found: Mapping[str, Any]) -> str:
    """Return what a person is told. Args: found: as `why --json` prints it, without `said`."""
    if not found["sweep_count"]:
        return "no model was asked since its nodes were last reached: ask one, and ask why again while it answers"
    bound, seconds, ago = found["bound"], found["seconds_per_sweep"], found["seconds_ago"]
    thing = "token" if found["tokens_per_second"] else "part of a prompt"
    speed = f", {found['tokens_per_second']:.1f} tokens/s" if found["tokens_per_second"] else ""
    when = f" ({_ago(ago)})" if ago > max(OLD_SECONDS, 2 * seconds) else ""
    text = f"{bound['text']}: {100 * bound['share']:.0f} % of each {thing}'s {shown_seconds(seconds)}{speed}{when}."
    text = " ".join([text, *_fallbacks(bound, found.get("rounds", ()))])
    if found.get("no_advice"):
        return f"{text} What would help cannot be said: {found['no_advice']}"
    if not found["advice"]:
        return f"{text} Nothing that is known here would make it much quicker."
    helps = _helps(found["advice"][:MOST_ADVICE])
    return f"{text} {helps[0].upper()}{helps[1:]}."


def _fallbacks(bound: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each node that bounds and has its rounds over gRPC since frames could not be had.

    Where the coordinator's own work bounds, every node that has is one.
    """
    if bound["cause"] not in FALLBACK_CAUSES:
        return []
    failed = [one for one in rounds if one["frames_failed"] and one["node"] in (bound["node_names"] or (one["node"],))]
    texts = []
    for one in failed[:MOST_NAMED]:
        why = "it has no port for rounds: give its shardnode a --rounds-port that is free, or a newer version"
        if one["rounds_port"]:
            why = (f"its port for rounds ({one['rounds_port']}) is not reached: let it through its firewall, or give "
                   "its shardnode another --rounds-port")  # fmt: skip
        texts.append(f"Rounds to {one['node']} go over gRPC, since {why}.")
    return texts


def _helps(advice: Sequence[Mapping[str, Any]]) -> str:
    """Return what would help, by how much; of two that save about as much in one breath."""
    saved = [shown_seconds(one["saved_seconds"]) for one in advice]
    if len(advice) == 1:
        return f"{advice[0]['text']} would take {saved[0]} off"
    first, second = advice
    if second["saved_seconds"] >= SAME_SHARE * first["saved_seconds"]:
        return f"{first['text']}, or {second['text']}, would take about {saved[1]} off"
    return f"{first['text']} would take {saved[0]} off; {second['text']}, {saved[1]}"


def shown_seconds(seconds: float) -> str:
    """Return a time for a person: 0.40 s, 12 ms."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"


def _together(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ago(seconds: float) -> str:
    count = counted(int(seconds // 60), "minute") if seconds >= 60 else counted(int(seconds), "second")
    return f"as it was {count} ago; nothing has run since"

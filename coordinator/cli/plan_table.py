"""A plan as a person reads it: who holds what, what that takes, and what limits it.

Does not cover: making plans (planning/strategies.py), predicting (planning/prediction.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.program.sizes import shown_size
from coordinator.cli.tables import Column, Trouble, show_table
from coordinator.cli.telling import say

if TYPE_CHECKING:  # --help must not wait for it
    from common.weights.slice_description import SliceDescription
    from coordinator.planning.prediction import Prediction

NUMBERS = ("heads", "FFN columns", "disk", "memory", "compute ms", "disk ms", "link ms")
COLUMNS = (Column("node"), *(Column(title, is_number=True) for title in NUMBERS))


def show_plan(description: SliceDescription, predicted: Prediction, *, to_stderr: bool = False) -> None:
    """Print who holds what, what that takes, and what limits it."""
    rows = []
    for part, share in zip(predicted.devices, description.plan.shares, strict=True):
        rows.append((
            part.name if part.fits else Trouble(f"{part.name} (does not fit)"), str(share.query_head_count),
            str(share.ffn_column_count), shown_size(part.slice_bytes), shown_size(part.peak_memory_bytes),
            f"{1000 * part.compute_seconds:.0f}", f"{1000 * part.disk_seconds:.0f}", f"{1000 * part.link_seconds:.0f}",
        ))  # fmt: skip
    show_table(COLUMNS, rows, to_stderr=to_stderr)
    say("", to_stderr=to_stderr)
    token = predicted.seconds_per_token
    say(f"first token after {predicted.ttft_seconds:.2f} s, then {1 / token:.1f} tokens/s ({1000 * token:.0f} ms each);"
        " times above are of one token", to_stderr=to_stderr)  # fmt: skip
    say(f"what limits it: {predicted.bottleneck}", to_stderr=to_stderr)

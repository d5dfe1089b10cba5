"""A plan as a person reads it: who holds what, what that takes, and what limits it.

Does not cover: making plans (planning/strategies.py), predicting (planning/prediction.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # they import torch, and --help must not wait for that
    from common.weights.slice_description import SliceDescription
    from coordinator.planning.prediction import Prediction


def show_plan(description: SliceDescription, predicted: Prediction, *, to_stderr: bool = False) -> None:
    """Print who holds what, what that takes, and what limits it."""
    console = Console(stderr=to_stderr, soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False)
    titles = ("node", "heads", "FFN columns", "disk GB", "memory GB", "from memory ms", "from disk ms", "link ms")
    for title in titles:
        table.add_column(title, justify="left" if title == "node" else "right")
    for part, share in zip(predicted.devices, description.plan.shares, strict=True):
        table.add_row(
            part.name + ("" if part.fits else " (does not fit)"), str(share.query_head_count),
            str(share.ffn_column_count), f"{part.slice_bytes / 1e9:.2f}", f"{part.peak_memory_bytes / 1e9:.2f}",
            f"{1000 * part.compute_seconds:.0f}", f"{1000 * part.disk_seconds:.0f}", f"{1000 * part.link_seconds:.0f}",
        )  # fmt: skip
    console.print(table)
    token = predicted.seconds_per_token
    console.print(f"first token after {predicted.ttft_seconds:.2f} s, then {1 / token:.1f} tokens/s "
                  f"({1000 * token:.0f} ms each); times above are of one token")  # fmt: skip
    console.print(f"what limits it: {predicted.bottleneck}", markup=False)

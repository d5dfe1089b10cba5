"""How rounds may travel to other devices, by the names of `--wire-dtype` and `--rounds`."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import InputError
from common.weights.slice_format import ITEM_BYTES
from common.wire.row_codec import FLOAT32, WIRE_DTYPES, dtype_on_the_wire
from common.wording import plain
from coordinator.ranks.transports.carriers import AUTO, ROUNDS


@dataclass(frozen=True, kw_only=True)
class Travel:
    """How rounds travel. Raises: InputError: they do not."""

    dtype: str = FLOAT32
    rounds: str = AUTO

    def __post_init__(self) -> None:
        wire_item_bytes(self.dtype)
        if self.rounds not in ROUNDS:
            raise InputError(f"--rounds is '{plain(self.rounds[:20])}'; use {', '.join(ROUNDS)}")


def wire_item_bytes(name: str) -> int:
    """Return the bytes of one number of a token's rows. Raises: InputError: numbers do not travel so."""
    if name not in WIRE_DTYPES:
        raise InputError(f"--wire-dtype is '{plain(name[:20])}'; use {', '.join(WIRE_DTYPES)}")
    return ITEM_BYTES[dtype_on_the_wire(name, 1)]


USUAL_TRAVEL = Travel()

"""What readers share whose files hold plain numbers, and no blocks that slices could keep."""

from __future__ import annotations

from common.errors import InternalError
from common.weights.model_encodings import ModelEncodings
from common.weights.stored_numbers import Bytes


class PlainNumbers:
    """Of a `Checkpoint` (checkpoint.py)."""

    encodings: ModelEncodings | None = None
    widened: tuple[str, ...] = ()

    def read_blocks(self, name: str, start: int, stop: int) -> Bytes:
        raise InternalError(f"{name} has no blocks to be read")

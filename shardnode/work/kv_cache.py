"""Keys and values of every open sequence on this rank, within a byte budget.

Covers: reserving, growing and truncating by position, giving back. Does not cover: who opened a
sequence (sessions/open_sequences.py), the memory and attention itself (common/compute/backend.py).

A sequence reserves its whole capacity when it is opened, so that no answer fails half-way for lack
of room; the operating system commits the pages only as they are written.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import Any

from common.compute.backend import Backend
from common.errors import InputError, KvBudgetExceeded, ProtocolError
from common.model.model_spec import ModelSpec
from common.wording import counted


class SequenceKv:
    """Keys and values of one sequence."""

    def __init__(self, store: Any, layer_count: int, capacity: int) -> None:
        """Args: store: as Backend.new_store has made it, for `capacity` positions."""
        self.store = store
        self._lengths = (ctypes.c_ssize_t * layer_count)()
        self.lengths_address = ctypes.addressof(self._lengths)
        """Where the positions of each layer are counted, for kernels that do what `extend` does."""
        self.capacity = capacity

    def extend(self, layer: int, first_position: int, row_count: int) -> None:
        """Announce rows for `layer` at first_position onwards; what lay there and after is forgotten.

        Raises: ProtocolError: positions in between were never given; InputError: beyond the capacity.
        """
        if first_position > self._lengths[layer]:
            raise ProtocolError(f"position {first_position} of layer {layer} came after {self._lengths[layer]}")
        if first_position + row_count > self.capacity:
            raise InputError(f"position {first_position + row_count} is beyond the {self.capacity} reserved")
        self._lengths[layer] = first_position + row_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Neighbouring rows of one sequence in a round."""

    sequence: SequenceKv
    first_position: int
    row_count: int
    rotary_length: int


class Segments(list[Segment]):
    """The segments of a round, the same for all blocks of a sweep."""

    described: Any = None
    """What kernels were told of them (native_blocks.py), and what that points at; it goes when they go."""


class KvCache:
    """Hands out room for sequences within `budget_bytes`. Safe to call from several threads."""

    def __init__(self, spec: ModelSpec, kv_head_count: int, budget_bytes: int, backend: Backend) -> None:
        self._spec = spec
        self._kv_head_count = kv_head_count
        self._backend = backend
        self._lock = threading.Lock()
        self.budget_bytes = budget_bytes
        self.reserved_bytes = 0
        self.sequence_count = 0

    def sequence_bytes(self, position_capacity: int) -> int:
        """Return what a sequence of that many positions takes on this rank."""
        return self._spec.kv_bytes(self._kv_head_count, position_capacity)

    def open(self, position_capacity: int) -> SequenceKv:
        """Reserve a sequence.

        Raises: InputError: longer than the model's context; KvBudgetExceeded: no room.
        """
        most = self._spec.max_position_count
        if not 1 <= position_capacity <= most:
            raise InputError(f"a sequence of {counted(position_capacity, 'position')}; this model has from 1 to {most}")
        wanted_bytes = self.sequence_bytes(position_capacity)
        what = counted(position_capacity, "position needs", "positions need")
        with self._lock:
            if self.reserved_bytes + wanted_bytes > self.budget_bytes:
                raise KvBudgetExceeded(
                    f"{what} {wanted_bytes} bytes of keys and values; "
                    f"{self.budget_bytes - self.reserved_bytes} of {self.budget_bytes} are free: ask for a shorter "
                    "answer (--length) or raise --kv-budget-bytes"
                )
            spec = self._spec
            shape = (spec.layer_count, 2, self._kv_head_count, position_capacity, spec.head_size)
            try:
                store = self._backend.new_store(shape)
            except MemoryError as error:
                raise KvBudgetExceeded(f"{what} {wanted_bytes} bytes of keys and values; this device has not so much "
                                       "memory free") from error  # fmt: skip
            # Counted last: where the system refuses the memory, nothing is reserved.
            self.reserved_bytes += wanted_bytes
            self.sequence_count += 1
        return SequenceKv(store, spec.layer_count, position_capacity)

    def close(self, sequence: SequenceKv) -> None:
        """Give a sequence's room back."""
        with self._lock:
            self.reserved_bytes -= self.sequence_bytes(sequence.capacity)
            self.sequence_count -= 1

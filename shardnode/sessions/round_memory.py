"""Where long tensors of one coordinator's rounds lie, when it runs on this host and offers memory for them.

Covers: accepting an offer with distrust. Does not cover: files
(common/wire/memory_file.py), when it is used (session.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import ProtocolError
from common.wire.memory_file import Room, open_memory
from common.wire.rpc import MAX_MESSAGE_BYTES

FILE_COUNT = 2
"""Descriptors that come with the first message of a session: of inputs and of answers."""


@dataclass(frozen=True, kw_only=True)
class AcceptedMemory:
    """Both memories of a session; they are freed with this object and the last tensor over them."""

    inputs: Room
    """The coordinator's; it changes when the next round begins. It cannot be written here: that would end the node."""
    answers: Room

    @classmethod
    def accept(cls, files: Sequence[int], byte_count: int) -> AcceptedMemory | None:
        """Return what a coordinator offers; None where it offers nothing or no descriptor came through.

        Args: files: descriptors, which the caller closes; byte_count: of each memory, as the coordinator says.
        Raises: ProtocolError: the files are not what they are said to be.
        """
        if not byte_count or not files:
            return None
        if byte_count > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"{byte_count} bytes of memory were offered; at most {MAX_MESSAGE_BYTES} are allowed")
        if len(files) != FILE_COUNT:
            raise ProtocolError(f"{len(files)} files came with an offer of memory instead of {FILE_COUNT}")
        return cls(
            inputs=Room(open_memory(files[0], byte_count, writes=False)),
            answers=Room(open_memory(files[1], byte_count, writes=True)),
        )

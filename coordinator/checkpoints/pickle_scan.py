"""Does a pickle hold tensors and nothing else? Told by its operations, without running one.

Covers: the names that the pickle of torch.save may use, which are those of rebuilding plain tensors; how it may nest.
Does not cover: tensors themselves, which torch rebuilds afterwards (bin_reader.py).

torch's own unpickler runs no code of a file, but it calls more than tensors need, such as bytearray(10**10), and it
makes keys of whatever is hashable, of which some take for ever to hash.
"""

from __future__ import annotations

import pickletools

from common.errors import CheckpointError

_NAMES = frozenset({
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in (
        "BFloat16", "Half", "Float", "Double", "Byte", "Char", "Short", "Int", "Long", "Bool",
    )),
})  # fmt: skip
_OPERATIONS = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_LIST",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINFLOAT",
})  # fmt: skip
"""What torch.save writes. Among the others are what makes objects of any class, and copies of what is there."""
_DEEPENING = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_MOST_TUPLES_IN_A_ROW = 8
"""A tensor's arguments are three deep; each level over what was made before doubles what a hash has to do."""


def check_pickle(pickle: bytes, place: str) -> None:
    """Raise CheckpointError, naming the place, for a pickle of more than tensors."""
    tuples_in_a_row = 0
    try:
        for operation, argument, _ in pickletools.genops(pickle):
            name = operation.name
            if name not in _OPERATIONS or (name == "GLOBAL" and str(argument) not in _NAMES):
                what = f"{name} {str(argument)[:60]!r}" if name == "GLOBAL" else name
                raise CheckpointError(f"{place} holds more than weights ({what}) and was not loaded: it may execute "
                                      "code of its own; use the model's safetensors files")  # fmt: skip
            if name in _DEEPENING:
                tuples_in_a_row += 1
            elif name not in ("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK"):
                tuples_in_a_row = 0
            if tuples_in_a_row > _MOST_TUPLES_IN_A_ROW:
                raise CheckpointError(f"{place} is damaged: it nests without end; download it again")
    except ValueError as error:
        raise CheckpointError(f"{place} is damaged: {str(error)[:100]}; download it again") from error

"""Reads and writes whole safetensors files as numpy arrays, bfloat16 as uint16 (common/weights/stored_numbers.py).

Does not cover: files that are damaged (damaged_models.py), slices (common/weights/slice_format.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
_CODES = {
    "float32": "F32",
    "float16": "F16",
    "uint16": "BF16",
    "float64": "F64",
    "bool": "BOOL",
    "int64": "I64",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
}
_DTYPES = {code: np.dtype(name) for name, code in _CODES.items()}
_ALIGNMENT = 8


def write_tensors(tensors: Mapping[str, Array], path: Path) -> None:
    """Write a file as transformers does: the header padded with spaces, tensors one after the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        code = _CODES[tensor.dtype.name]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).data if tensor.size else b"")


def read_tensors(path: Path) -> dict[str, Array]:
    """Return a file's tensors, in their order in it, each in memory of its own."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
    tensors = {}
    for name, entry in entries:
        first, end = entry["data_offsets"]
        flat = np.frombuffer(data[start + first : start + end], dtype=_DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).copy()
    return tensors

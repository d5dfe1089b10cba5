"""What is used of the `gguf` package: kinds of blocks, their sizes, and how they become float32.

Covers: importing these alone. The package itself imports its readers, writers and converters, with YAML and
sentencepiece: 0.17 s of processor time at every start, where these two modules take a tenth.
Does not cover: reading a file (gguf_file.py, gguf_reader.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf.constants import GGML_QUANT_SIZES as GGML_QUANT_SIZES
    from gguf.constants import GGMLQuantizationType as GGMLQuantizationType
    from gguf.quants import dequantize as dequantize


def _parts() -> tuple[ModuleType, ModuleType]:
    """Import both as parts of a package that runs nothing; whoever imports `gguf` later gets the real one."""
    names = "gguf.constants", "gguf.quants"
    if "gguf" in sys.modules:
        return importlib.import_module(names[0]), importlib.import_module(names[1])
    spec = importlib.util.find_spec("gguf")
    if spec is None:
        raise ModuleNotFoundError("No module named 'gguf'", name="gguf")
    package = ModuleType("gguf")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["gguf"] = package
    try:
        return importlib.import_module(names[0]), importlib.import_module(names[1])
    finally:
        del sys.modules["gguf"]


if not TYPE_CHECKING:
    _constants, _quants = _parts()
    GGML_QUANT_SIZES, GGMLQuantizationType = _constants.GGML_QUANT_SIZES, _constants.GGMLQuantizationType
    dequantize = _quants.dequantize

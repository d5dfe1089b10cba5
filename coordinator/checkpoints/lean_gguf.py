"""What is used of the `gguf` package: kinds of blocks and their sizes.

Covers: importing these alone. The package itself imports its readers, writers and converters, with YAML and
sentencepiece: 0.17 s of processor time at every start, where what we import takes a tenth.
Does not cover: reading a file (gguf_file.py, gguf_reader.py), how blocks become float32 (gguf_numbers.py).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def package_that_runs_nothing() -> Iterator[None]:
    """Let parts of `gguf` be imported without the package; whoever imports it later gets the real one."""
    spec = importlib.util.find_spec("gguf")
    if "gguf" in sys.modules or spec is None:
        yield
        return
    package = ModuleType("gguf")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["gguf"] = package
    try:
        yield
    finally:
        del sys.modules["gguf"]


with package_that_runs_nothing():
    from gguf.constants import GGML_QUANT_SIZES as GGML_QUANT_SIZES
    from gguf.constants import GGMLQuantizationType as GGMLQuantizationType

"""Builds the matrix kernels when shardmesh is installed; an install goes on without them where it cannot.

Covers: calling common/native/build.py from hatchling, naming the wheel after the platform it now is for.
Does not cover: compiling (common/native/build.py).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeKernelsHook(BuildHookInterface[Any]):
    """Compiles before any wheel, also the editable one of `pip install -e .`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library in the source tree and add it to the wheel."""
        native = _load(Path(self.root, "common", "native", "build.py"))
        try:
            library: Path = native.build()
        except native.BuildFailed as error:
            self.app.display_warning(native.what_is_lost(error))
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")


def _load(path: Path) -> ModuleType:
    """Import one file: its package is not installed yet."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module

"""Builds the matrix kernels and the start scripts when shardmesh is installed; goes on without kernels where it cannot.

Covers: calling common/native/build.py from hatchling, naming the wheel after the machines it is for; a start script for
each program, out of common/program/start_script.sh.
Does not cover: compiling (common/native/build.py). Cutting models and computing on a card take no kernels, and whoever
starts without them on a CPU is told; `make setup` does not go on without.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = {
    "shardnode": "shardnode.start",
    "coordinator": "coordinator.cli.coordinator_start",
    "coordinator-cli": "coordinator.cli.start",
}


class InstallHook(BuildHookInterface[Any]):
    """Compiles and writes scripts before any wheel, also the editable one of `pip install -e .`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the start scripts and the library to the wheel."""
        self._scripts = tempfile.TemporaryDirectory()
        for program, module in PROGRAMS.items():
            script = Path(self._scripts.name, program)
            script.write_text(start_script(Path(self.root), program, module), encoding="utf-8")
            script.chmod(0o755)
        build_data["shared_scripts"][self._scripts.name] = "."
        self._add_kernels(build_data, is_editable=version == "editable")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Drop the scripts: the wheel has them."""
        self._scripts.cleanup()

    def _add_kernels(self, build_data: dict[str, Any], *, is_editable: bool) -> None:
        native = _load(Path(self.root, "common", "native", "build.py"))
        if is_editable and native.is_fresh():
            return
        try:
            library: Path = native.build()
        except native.BuildFailed as error:
            self.app.display_warning(native.what_to_do(error))
            return
        if is_editable:
            return
        # They are plain C, called by ctypes: one machine's wheel is for every Python.
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{native.platform_tag(library)}"
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")


def start_script(root: Path, program: str, module: str) -> str:
    """Return the script that starts one program, whose `main` is in `module`."""
    text = (root / "common" / "program" / "start_script.sh").read_text(encoding="utf-8")
    return text.replace("MODULE", module).replace("PROGRAM", program)


def _load(path: Path) -> ModuleType:
    """Import one file: its package is not installed yet."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module

"""Makes `import torch` cheaper for a program that runs models and compiles none: what only compilers need comes later.

    import_torch_lean()      # before anything imports torch; from then on `import torch` is the lean one

Covers: modules of torch that are not run until somebody looks into them; then they come as ever.
Does not cover: torch as a library of somebody else's program, tests included: they get all of it.

torch runs them at every start to tell its compilers the shape of each operation's result without computing it (its
"meta" device), and to offer kernels in Triton. We compute only. Without them: 1.5 s of processor time instead of 2.3
and 201 MB instead of 219 at every start of a program.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

FOR_COMPILERS = ("torch._meta_registrations", "torch._native")


class _LaterFinder(MetaPathFinder):
    """Finds what Python finds, to be run when its first attribute is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder. Another torch may lack some of them, which is for its own import to say."""
        if fullname not in FOR_COMPILERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def import_torch_lean() -> None:
    """Have the next `import torch` leave out what only compilers need; nothing if torch is there already."""
    if "torch" not in sys.modules and not any(isinstance(finder, _LaterFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LaterFinder())

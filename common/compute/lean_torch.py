"""Makes `import torch` cheaper for what multiplies or copies: what only compilers need comes when it is asked for.

    import_torch_lean()      # before anything imports torch; from then on `import torch` is the lean one

Covers: modules of torch that are not run until somebody looks into them; then they come as ever.
Does not cover: programs that draw tokens (torch.Generator asks for all of it), torch in somebody else's program, tests
included.

torch runs them at every start to tell its compilers the shape of each operation's result without computing it (its
"meta" device), and to offer kernels in Triton. Without them importing torch takes 1.5 s of processor time
instead of 2.3, and 201 MB instead of 219. They are torch's own affair, so they are left out of the versions we have
tried only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

TRIED_VERSIONS = ("2.13.", "2.15.")
FOR_COMPILERS = ("torch._meta_registrations", "torch._native")


class _LaterFinder(MetaPathFinder):
    """Finds what Python finds, to be run when its first attribute is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder."""
        if fullname not in FOR_COMPILERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def import_torch_lean() -> None:
    """Have the next `import torch` leave out what only compilers need; nothing if torch is there, or is another one."""
    if "torch" in sys.modules:
        return
    from importlib.metadata import version  # here and not at the top: it takes as long as the rest of a verb's imports

    if not version("torch").startswith(TRIED_VERSIONS):
        return
    if not any(isinstance(finder, _LaterFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LaterFinder())

"""Do compilers find nothing to warn of in our kernels, for any processor?

Covers: gcc and clang for this processor, gcc for 64-bit Arm; each as far as it is here. `make verify` runs this file.
Does not cover: what the kernels compute (tests/property), how an install builds them: with warnings or not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from common.native.build import STRICT_FLAGS
from tests.support.toolchains import TOOLCHAINS, Toolchain


@pytest.mark.parametrize("toolchain", TOOLCHAINS, ids=lambda toolchain: toolchain.name)
def test_compilers_have_nothing_to_say(tmp_path: Path, toolchain: Toolchain) -> None:
    """As optimized as in an install: some warnings come only of that."""
    if toolchain.missing():
        pytest.skip(toolchain.missing())
    assert toolchain.library(tmp_path, STRICT_FLAGS).is_file()

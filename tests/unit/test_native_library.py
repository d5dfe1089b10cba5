"""Does a library that is missing, stale or broken leave a working program, and does building one fail politely?

Covers: common/native/library.py, common/native/build.py. Does not cover: what the kernels compute (test_matmul.py).
"""

from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path

import pytest

from common.native import build as building
from common.native import library
from common.native.build import LIBRARY, STRICT_FLAGS, BuildFailed, build, is_fresh, platform_tag, what_to_do
from common.native.library import NONE, load
from tests.support.quick_compiler import quick_compiler

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="the library was not built")


def test_a_library_that_was_not_built_is_no_reason_to_complain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has no compiler was told at install, and reports can still say why."""
    kernels = load(tmp_path / "matmul.so")
    assert (kernels.variant, kernels.functions) == (NONE, None)
    assert "python -m common.native.build" in kernels.reason
    assert caplog.records == []


def refused(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Load a library that is no good and return the one warning."""
    with caplog.at_level(logging.WARNING):
        kernels = load(path)
    assert (kernels.variant, kernels.functions) == (NONE, None)
    assert kernels.reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    return caplog.text


@needs_library
@pytest.mark.parametrize("kept_bytes", [0, 20, 64, 5000, -1])
def test_a_library_that_is_cut_short_is_refused(
    tmp_path: Path, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the system's loader crashes on it."""
    path = tmp_path / LIBRARY.name
    path.write_bytes(LIBRARY.read_bytes()[:kept_bytes])
    assert str(path) in refused(path, caplog)


@needs_library
def test_a_library_of_another_machine_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tree that two machines share has the library of one of them."""
    path = tmp_path / LIBRARY.name
    content = bytearray(LIBRARY.read_bytes())
    content[4:20] = bytes(16)
    path.write_bytes(content)
    assert str(path) in refused(path, caplog)


def test_a_library_without_our_functions_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Something else by that name, or a version from before a function was added."""
    other = getattr(math, "__file__", None) or getattr(sys.modules.get("_ctypes"), "__file__", None)
    if other is None:
        pytest.skip("this Python has all its modules built in")
    assert "shardmesh_abi_version" in refused(Path(other), caplog)


@needs_library
def test_a_library_with_another_interface_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stale library would be called with the wrong arguments."""
    monkeypatch.setattr(library, "ABI_VERSION", library.ABI_VERSION + 1)
    assert f"interface {library.ABI_VERSION - 1}" in refused(LIBRARY, caplog)


@needs_library
def test_the_best_instruction_set_is_chosen() -> None:
    """All that this processor has can be chosen, others cannot."""
    kernels = load()
    assert kernels.variant == kernels.variants[0] != NONE
    for variant in reversed(kernels.variants):
        kernels.choose(variant)
    with pytest.raises(ValueError, match="is not in"):
        kernels.choose("abacus")


def test_a_machine_without_a_compiler_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(building, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(BuildFailed, match="no C compiler") as failure:
        build(tmp_path / "matmul.so")
    assert "\n" not in what_to_do(failure.value)
    assert "gcc or clang" in what_to_do(failure.value)
    assert "make wheel" in what_to_do(failure.value)


def test_a_library_is_built_anew_when_a_source_is_newer(tmp_path: Path) -> None:
    """And when there is none."""
    copy = tmp_path / "matmul.so"
    assert not is_fresh(copy)
    copy.touch()
    assert is_fresh(copy)
    os.utime(copy, (0, 0))
    assert not is_fresh(copy)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has other names")
@pytest.mark.parametrize(
    ("strings", "system"),
    [
        (b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.3.4\0", "manylinux_2_34"),
        (b"\0malloc\0GLIBC_2.4\0", "manylinux_2_17"),
        (b"\0libc.musl-x86_64.so.1\0", "linux"),
    ],
)
def test_a_wheel_is_named_after_the_c_library_that_its_kernels_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strings: bytes, system: str
) -> None:
    """By the newest version of a function in it, so that pip refuses it where it would not load."""
    monkeypatch.setattr(building.platform, "machine", lambda: "AMD64")
    (tmp_path / "matmul.so").write_bytes(b"\x7fELF" + strings)
    assert platform_tag(tmp_path / "matmul.so") == f"{system}_x86_64"


@pytest.mark.parametrize(
    ("target", "tag"), [("11.0", "macosx_11_0_arm64"), ("14", "macosx_14_0_arm64"), ("10.15", "macosx_10_15_arm64")]
)
def test_on_macos_it_is_named_after_the_system_that_it_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, tag: str
) -> None:
    """Which the compiler takes from the same variable."""
    monkeypatch.setattr(building.sys, "platform", "darwin")
    monkeypatch.setattr(building.platform, "machine", lambda: "arm64")
    monkeypatch.setenv("MACOSX_DEPLOYMENT_TARGET", target)
    assert platform_tag(tmp_path / "matmul.dylib") == tag


@pytest.mark.parametrize("compiler", ["false", "/no/such/compiler"])
def test_a_compiler_that_refuses_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    """The library of before stays; $CC is what is used."""
    monkeypatch.setenv("CC", compiler)
    target = tmp_path / "matmul.so"
    target.write_bytes(b"of before")
    with pytest.raises(BuildFailed, match=compiler):
        build(target)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("matmul.so", b"of before")]


def test_an_install_lets_compilers_warn(tmp_path: Path) -> None:
    """Those of users may warn of what ours do not; that is no reason to go without kernels. `make verify` is strict."""
    compiler, said = tmp_path / "compiler", tmp_path / "said"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {said}\nexit 1\n')
    compiler.chmod(0o755)
    for flags, is_strict in (((), False), (STRICT_FLAGS, True)):
        said.unlink(missing_ok=True)
        with pytest.raises(BuildFailed):
            build(tmp_path / "matmul.so", "x86_64", [str(compiler)], flags)
        assert ("-Werror" in said.read_text()) == is_strict


def test_an_unknown_machine_has_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is even asked, nor is installing one proposed."""
    with pytest.raises(BuildFailed, match="pdp11") as failure:
        build(tmp_path / "matmul.so", machine="pdp11")
    assert "gcc" not in what_to_do(failure.value)
    assert "--backend torch" in what_to_do(failure.value)
    monkeypatch.setattr(building.platform, "machine", lambda: "pdp11")
    kernels = load(tmp_path / "matmul.so")
    assert "pdp11" in kernels.reason
    assert not kernels.can_be_built


def test_a_directory_that_cannot_be_built_into_gets_one_line(tmp_path: Path) -> None:
    """It names the directory, and no compiler, which would not help."""
    with pytest.raises(BuildFailed, match="No such file or directory") as failure:
        build(tmp_path / "absent" / "matmul.so", machine="x86_64")
    assert str(tmp_path / "absent") in what_to_do(failure.value)
    assert "gcc" not in what_to_do(failure.value)


def test_who_installed_by_pip_is_not_told_of_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a checkout has a Makefile."""
    assert "make setup" in building.how_to_build()
    monkeypatch.setattr(building, "SOURCE_DIRECTORY", tmp_path / "common" / "native")
    assert "make" not in building.how_to_build()
    assert "pip install --force-reinstall --no-cache-dir" in building.how_to_build()


@needs_library
def test_a_processor_without_the_instructions_is_helped_by_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library was built, and holds nothing that runs here."""
    monkeypatch.setattr(library, "_variant_names", lambda functions: [])
    assert not load().can_be_built


@needs_library
def test_a_library_is_built_in_one_step(tmp_path: Path) -> None:
    """Where the one in use was built, another can be, and nothing else is left beside it."""
    compiler, directory = quick_compiler(tmp_path), tmp_path / "built"
    directory.mkdir()
    target = build(directory / LIBRARY.name, compiler=compiler)
    assert list(directory.iterdir()) == [target]
    assert load(target).variants == load().variants

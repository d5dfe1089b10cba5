"""Does a mesh keep what it cannot be without, whatever becomes of one file of it?

Covers: checksums, copies, what was written without either; the files of coordinator and node, damaged and gone.
Does not cover: programs that are killed while they write (tests/contract/test_trust_faults.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from common.errors import InputError, NotTrusted, ShardmeshError, SliceCorrupt
from common.machine.durable_files import replace_private
from common.program.state_files import copy_of, damaged_count, mend_state, read_state, sealed, unsealed, write_state
from coordinator.membership.book import MEMBERS_FILE
from coordinator.membership.state import init_mesh, mend_mesh_state, open_mesh_state
from shardnode.slices.slice_store import SliceStore
from tests.support.kept_mesh import KeptMesh

JSON, PEM = b'{"format": 1, "members": [{"name": "kitchen"}]}', b"-----BEGIN X-----\nabc\n-----END X-----\n"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "one letter": lambda path: path.write_bytes(path.read_bytes().replace(b"e", b"f", 1)),
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "gone": lambda path: path.unlink(),
}
NAMES = ("authority.key", "authority.pem", "identity.pem", MEMBERS_FILE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state of a mesh with one member."""
    directory = tmp_path_factory.mktemp("made")
    init_mesh(directory, "home")
    KeptMesh(directory).let_in("kitchen", "a1")
    return directory


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    """Return such a state that may be damaged."""
    shutil.copytree(made, tmp_path / "state")
    (tmp_path / "state").chmod(0o700)
    return tmp_path / "state"


@pytest.mark.parametrize("content", [JSON, PEM, b'{"a": 1}', b"", b"no end of line"])
def test_content_comes_back_from_its_sealed_form(content: bytes) -> None:
    """JSON stays JSON of the same meaning, text the same text but for the end of its last line."""
    whole = sealed(content)
    assert sealed(unsealed(whole)) == whole
    if content.startswith(b"{"):
        assert json.loads(unsealed(whole)) == json.loads(content)
        assert {key: value for key, value in json.loads(whole).items() if key != "sha256"} == json.loads(content)
    else:
        assert unsealed(whole).rstrip(b"\n") == content.rstrip(b"\n")
    assert unsealed(content) == content  # as builds before have written it


@pytest.mark.parametrize("content", [JSON, PEM])
def test_no_changed_bit_is_taken_for_what_was_written(content: bytes) -> None:
    """Of what was sealed, each bit."""
    whole = sealed(content)
    for position in range(8 * (len(whole) - 80)):  # the last 80 bytes are the checksum's own
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        try:
            assert unsealed(bytes(changed)) == bytes(changed), "without a checksum it is for the reader to tell"
        except ValueError:
            continue


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_one_damaged_file_changes_nothing(
    state: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its copy stands for it, the log says so, and the next start of the coordinator mends it; either of the two."""
    before = (state / name).read_bytes()
    for damaged in (state / name, copy_of(state / name)):
        caplog.clear()
        counted = damaged_count()
        DAMAGES[damage](damaged)
        opened = open_mesh_state(state)
        assert [member.name for member in opened.members.all()] == ["kitchen"]
        if damaged.name == name:
            assert "its copy is used" in caplog.text
            assert damaged_count() == counted + 1
        mend_mesh_state(opened)
        assert (state / name).read_bytes() == copy_of(state / name).read_bytes() == before


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "gone"])
@pytest.mark.parametrize("name", NAMES)
def test_where_the_copy_is_damaged_too_a_person_is_told_what_to_do(state: Path, name: str, damage: str) -> None:
    """In one line, with the file and the command; nobody is forgotten silently."""
    for path in (state / name, copy_of(state / name)):
        DAMAGES[damage](path)
    with pytest.raises((InputError, NotTrusted), match=r"damaged.*(mesh restore|restore it from a backup)"):
        open_mesh_state(state)


def test_a_list_of_members_that_is_gone_is_damage(state: Path) -> None:
    """Not a mesh without members; a key that an earlier build has written promises none, unless there are models."""
    for path in (state / MEMBERS_FILE, copy_of(state / MEMBERS_FILE)):
        path.unlink()
    with pytest.raises(InputError, match=r"members\.json is gone.*mesh restore"):
        open_mesh_state(state)
    key = state / "authority.key"
    replace_private(key, unsealed(key.read_bytes()))
    copy_of(key).unlink()
    opened = open_mesh_state(state)
    assert opened.members.all() == []
    mend_mesh_state(opened)
    assert (state / MEMBERS_FILE).exists()
    (state / MEMBERS_FILE).unlink()
    copy_of(state / MEMBERS_FILE).unlink()
    with pytest.raises(InputError, match=r"members\.json is gone"):
        open_mesh_state(state)


def test_what_was_written_without_a_checksum_is_read_and_gets_one(state: Path) -> None:
    """As every mesh of before has it."""
    for name in NAMES:
        replace_private(state / name, unsealed((state / name).read_bytes()))
        copy_of(state / name).unlink()
    opened = open_mesh_state(state)
    assert opened.members.has("kitchen")
    mend_mesh_state(opened)
    for name in NAMES:
        assert (
            (state / name).read_bytes()
            == copy_of(state / name).read_bytes()
            == sealed(unsealed((state / name).read_bytes()))
        )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_node_that_cannot_tell_what_it_served_says_so(tmp_path: Path, damage: str) -> None:
    """It served nothing, and said nothing, before; now its copy tells, or the mesh hears of it."""
    store, path = SliceStore(tmp_path / "data"), tmp_path / "data" / "serving.json"
    assert store.served() == ""
    store.set_served("a" * 64)
    DAMAGES[damage](path)
    assert store.served() == "a" * 64
    store.set_served("b" * 64)
    if damage == "gone":
        return
    for damaged in (path, copy_of(path)):
        DAMAGES[damage](damaged)
    with pytest.raises(SliceCorrupt, match=r"serving\.json is damaged.*load the model again"):
        store.served()
    store.set_served("c" * 64)
    assert store.served() == "c" * 64


def test_a_copy_is_never_older_than_its_file(tmp_path: Path) -> None:
    """It is written first: where that fails the file is as before, and where the file fails the copy is not used."""
    path = tmp_path / MEMBERS_FILE
    write_state(path, b'{"n": 1}')
    for failing in (1, 2):
        calls: list[Path] = []

        def fail(place: Path, content: bytes, failing: int = failing, calls: list[Path] = calls) -> None:
            calls.append(place)
            if len(calls) == failing:
                raise OSError(28, "full")
            replace_private(place, content)

        with mock.patch("common.program.state_files.replace_private", fail), pytest.raises(OSError, match="full"):
            write_state(path, b'{"n": 2}')
        assert read_state(path, json.loads)["n"] == 1
    mend_state(path, json.loads)
    assert copy_of(path).read_bytes() == path.read_bytes() == sealed(b'{"n": 1}')


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o770, 0o704])
def test_a_directory_of_keys_that_others_may_enter_is_refused(state: Path, mode: int) -> None:
    """As ssh refuses such a key: with what to type."""
    state.chmod(mode)
    with pytest.raises(ShardmeshError, match=rf"^others may \w+ {state} \(mode 0{mode:o}\).*chmod 700 {state}$"):
        open_mesh_state(state)
    state.chmod(0o700)
    open_mesh_state(state)

"""Does what root does for a service's user stay readable for that user?"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from common.errors import InputError
from common.machine.durable_files import replace_private
from common.machine.state_directory import check_own
from common.trust.join_token import JoinToken
from coordinator.membership.state import init_mesh
from coordinator.models.unloading import one_at_a_time
from shardnode.membership.join import join_mesh

OTHER = 4_000_000_000


@pytest.fixture
def root_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process be root, and every directory somebody else's."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("common.machine.state_directory._owner", lambda directory: OTHER)


@pytest.mark.usefixtures("root_elsewhere")
def test_root_is_told_to_work_as_the_user_whose_directory_it_is(tmp_path: Path) -> None:
    """Whatever makes directories there: a mesh, a membership, a model. A service would fail later, with less to say."""
    token = JoinToken(addresses=(), authority_fingerprint=bytes(32), secret=bytes(16)).text
    for work in (
        lambda: init_mesh(tmp_path, "home"), lambda: join_mesh(token, "kitchen", tmp_path, "127.0.0.1:0"),
        lambda: one_at_a_time(tmp_path / "models").__enter__(),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"belongs to the user #{OTHER}.* runuser -u"):
            work()
    assert not list(tmp_path.iterdir())
    check_own(tmp_path / "not there yet")


def test_a_file_that_root_replaces_belongs_to_whom_its_directory_does(tmp_path: Path) -> None:
    """`status` as root may renew the coordinator's certificate."""
    with mock.patch("os.geteuid", return_value=0), mock.patch("os.fchown") as given:
        replace_private(tmp_path / "identity.pem", b"key")
    assert given.call_args.args[1:] == (tmp_path.stat().st_uid, tmp_path.stat().st_gid)


def test_everybody_else_works_where_the_system_lets_them(tmp_path: Path) -> None:
    """Nothing is asked of who is not root, and root may use what is root's."""
    for user, owner in ((1000, OTHER), (0, 0), (1000, 0)):
        with (
            mock.patch("os.geteuid", return_value=user),
            mock.patch("common.machine.state_directory._owner", return_value=owner),
        ):
            check_own(tmp_path)

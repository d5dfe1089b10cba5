"""`coordinator-cli mesh restore`: a mesh comes back from a backup, and nobody who was removed since."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import InputError
from common.program.path_options import path_argument
from coordinator.cli.options import StateOption, as_typed
from coordinator.cli.passphrase import PassphraseFileOption, passphrase
from coordinator.cli.telling import tell

if TYPE_CHECKING:  # it imports what --help must not wait for
    from coordinator.membership.backup import Backup

MOST_BYTES = 16 << 20


def restore(
    file: Annotated[Path, path_argument(help="What `coordinator-cli mesh backup` has written.")],
    removed: Annotated[
        list[str] | None,
        typer.Option(help="A node that was removed since the backup; may be given several times.", show_default=False),
    ] = None,
    none_removed: Annotated[
        bool, typer.Option("--none-removed", help="No node was removed since the backup.")
    ] = False,
    passphrase_file: PassphraseFileOption = None,
    state_dir: StateOption = None,
) -> None:  # fmt: skip
    """Bring a mesh back from a backup. Its coordinator must not run meanwhile.

    You say which nodes were removed since the backup was made, since it does not know: they stay out. Nodes that
    joined since join again; all others come back by themselves, also those whose certificate was renewed since.
    """
    from common.trust.passphrase_box import opened
    from coordinator.membership.backup import bring_back, read_backup
    from coordinator.membership.state import default_state_directory

    if removed and none_removed:
        raise InputError("--removed and --none-removed contradict each other; leave one out")
    try:
        with open(file, "rb") as source:
            content = source.read(MOST_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    backup = read_backup(opened(content, passphrase(passphrase_file, twice=False)))
    gone = removed or ([] if none_removed or not backup.members else _asked(backup))
    directory = state_dir or default_state_directory()
    members = bring_back(backup, directory, gone)
    tell(f"mesh {backup.mesh} is back in {directory}, as of {_day(backup)}, with: {', '.join(members) or 'no members'}")
    tell(f"next: coordinator --master-ip 0.0.0.0{as_typed(state_dir)}, and coordinator-cli load for each model; a node "
         "that joined since needs a new token")  # fmt: skip


def _asked(backup: Backup) -> list[str]:
    """Return which members were removed since, as a person says. Raises: InputError: nobody can be asked."""
    question = f"the backup is of {_day(backup)} and has: {', '.join(backup.members)}. Which were removed since?"
    if not sys.stdin.isatty():
        raise InputError(f"{question} Say it with --removed NAME, or with --none-removed")
    tell(question)
    typed = typer.prompt("names with commas, or none", err=True).strip()
    return [] if typed == "none" else [name.strip() for name in typed.split(",") if name.strip()]


def _day(backup: Backup) -> str:
    return f"{datetime.fromtimestamp(backup.made_at).astimezone():%Y-%m-%d %H:%M}"

"""`coordinator-cli mesh backup`: what a mesh cannot be without, in one file, for another place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from common.errors import InputError
from common.program.path_options import path_argument
from coordinator.cli.options import StateOption
from coordinator.cli.passphrase import PassphraseFileOption, passphrase
from coordinator.cli.telling import tell


def backup(
    file: Annotated[Path, path_argument(help="Where the backup goes; a file that is there is replaced.")],
    passphrase_file: PassphraseFileOption = None,
    state_dir: StateOption = None,
) -> None:
    """Write the mesh's authority and its list of members to a file: only your passphrase opens it.

    Keep it on another device, and make another one when devices have joined or gone. Models are not in it: after a
    restore, load them again; nodes still have their slices.
    """
    from common.machine.durable_files import replace_private
    from common.trust.identity import not_written
    from common.trust.passphrase_box import locked
    from coordinator.membership.backup import take_backup
    from coordinator.membership.state import default_state_directory

    taken = take_backup(state_dir or default_state_directory())
    if not file.parent.is_dir() or file.is_dir():
        raise InputError(f"cannot write {file}: name a file in a directory that is there")
    content = locked(taken.text(), passphrase(passphrase_file, twice=True))
    try:
        replace_private(file, content)
    except OSError as error:
        raise not_written(file.parent, error) from error
    tell(f"mesh {taken.mesh} is kept in {file}, with {len(taken.members)} members; without the passphrase it is worth "
         "nothing, and whoever has both can let devices in")  # fmt: skip

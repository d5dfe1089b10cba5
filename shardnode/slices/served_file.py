"""Which slice was served last? A file of a node's data directory says it, also after a restart.

Covers: DATA_DIR/serving.json, its damage. Does not cover: the slice itself (slice_store.py), opening it (serving.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from common.errors import SliceCorrupt
from common.program.state_files import DAMAGE, read_state, write_state
from shardnode.slices.slice_offer import SLICE_ID

SERVING_FILE = "serving.json"
AGAIN = "load the model again (coordinator-cli load)"


class ServedFile:
    """What is remembered of one data directory."""

    def __init__(self, data_directory: Path) -> None:
        self._path = data_directory / SERVING_FILE

    def read(self) -> str:
        """Return the slice that was served last; empty for none. Raises: SliceCorrupt: nobody can tell which."""
        try:
            return read_state(self._path, _parsed)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise SliceCorrupt(f"cannot read {self._path}: {error.strerror}; {AGAIN}") from error
        except DAMAGE as error:
            raise SliceCorrupt(f"{self._path} is damaged, its copy too ({error}), so nobody can tell which slice this "
                               f"node served; {AGAIN}") from error  # fmt: skip

    def write(self, slice_id: str) -> None:
        """Remember which slice is served; empty for none. Raises: OSError: the one before is still remembered."""
        write_state(self._path, json.dumps({"slice_id": slice_id}).encode())


def _parsed(content: bytes) -> str:
    slice_id = json.loads(content)["slice_id"]
    if not isinstance(slice_id, str) or (slice_id and not SLICE_ID.fullmatch(slice_id)):
        raise ValueError("it names no slice")
    return slice_id

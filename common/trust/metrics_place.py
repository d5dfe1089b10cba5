"""Where is a program's metrics page, and what was said about who may read it? From flags, or keys of a TOML file.

Covers: options that contradict each other or would do nothing.
Does not cover: the page (common/program/metrics_page.py), who may come in (metrics_door.py).
"""

from __future__ import annotations

from pathlib import Path

from common.errors import InputError
from common.program.metrics_page import MetricsPlace
from common.wire.addresses import is_loopback, split_host_port

PORT_FLAG, LISTEN_FLAG, TOKEN_FLAG = "--metrics-port", "--metrics-listen", "--metrics-token-file"


def metrics_place(
    port: int | None, listen: str, token_file: Path | None, *, has_mesh: bool = True
) -> MetricsPlace | None:  # fmt: skip
    """Return where the page is; None: there is none.

    Args: has_mesh: whether there is an authority by which others are told apart. Raises: InputError.
    """
    if port is not None and listen:
        raise InputError(f"{PORT_FLAG} is this machine's own page and {LISTEN_FLAG} says where else: leave one of them "
                         "out")  # fmt: skip
    place = None
    if listen:
        host, wanted_port = split_host_port(listen)
        place = MetricsPlace(host=host, port=wanted_port, flag=LISTEN_FLAG)
    elif port is not None:
        place = MetricsPlace(port=port)
    if place is None or not is_for_others(place):
        if token_file is not None:
            raise InputError(f"{TOKEN_FLAG} is for a page that others reach; without {LISTEN_FLAG} HOST:PORT beyond "
                             "this machine nobody is asked for a token")  # fmt: skip
    elif not has_mesh:
        raise InputError(f"{listen} can be reached by other devices, and metrics go there over TLS only, by the mesh's "
                         f"authority; join a mesh first (shardnode join), or use {PORT_FLAG}")  # fmt: skip
    return place


def is_for_others(place: MetricsPlace) -> bool:
    """Tell whether other devices reach a page."""
    return not is_loopback(place.host)

"""Flags of where metrics are read, which every program that keeps running has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.program.path_options import path_option

MetricsPortOption = Annotated[
    int | None,
    typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1; 0: any free one.", show_default=False),
]
MetricsListenOption = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Serve Prometheus metrics there instead, such as 0.0.0.0:9400 (a coordinator's: 29510): to "
        "observers of the mesh (coordinator-cli mesh invite --observer) over TLS.",
        show_default=False,
    ),
]
MetricsTokenOption = Annotated[
    Path | None,
    path_option(
        help="File with a token with which metrics are read too, as `Authorization: Bearer TOKEN`.", show_default=False
    ),
]

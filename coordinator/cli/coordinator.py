"""The `coordinator` program: flags to a running coordinator, until SIGTERM; errors as one line and an exit code."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from common.compute.backend import check_activations, check_backend
from common.machine.descriptors import raise_limit
from common.machine.operating_system import share_heaps
from common.program.command_line import CONTEXT_SETTINGS, run_process
from common.program.lifecycle import stop_on_signals
from common.program.log_options import LogFormatOption
from common.program.logs import configure_logs, entry
from common.program.metrics_flags import MetricsListenOption, MetricsPortOption, MetricsTokenOption
from common.program.options_file import use_options_file
from common.program.path_options import path_option
from common.program.version import VersionOption
from common.wording import plain
from coordinator.cli.options import ActivationsOption, BackendOption, RoundsOption, WireDtypeOption
from coordinator.ranks.travel import Travel
from coordinator.tokenizer.nursery import Nursery

log = logging.getLogger(__name__)

app = typer.Typer(context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)


@app.command()
def coordinate(
    config: Annotated[
        Path | None,
        path_option(
            help="TOML file with these options by their names; flags go before it.",
            callback=use_options_file,
            is_eager=True,
        ),
    ] = None,
    master_ip: Annotated[
        str, typer.Option(help="Where members reach this coordinator; 0.0.0.0: on every network of this machine.")
    ] = "127.0.0.1",
    master_port: Annotated[int, typer.Option(help="Port for members; devices join on the next one.")] = 29500,
    state_dir: Annotated[
        Path | None, path_option(help="Where the mesh is kept; by default the service's or the user's own directory.")
    ] = None,
    advertise: Annotated[
        str, typer.Option(help="Host or address that tokens name, when devices reach this machine by another one.")
    ] = "",
    metrics_port: MetricsPortOption = None,
    metrics_listen: MetricsListenOption = "",
    metrics_token_file: MetricsTokenOption = None,
    discovery_file: Annotated[
        Path | None,
        path_option(
            help="Keep written here, for Prometheus' file discovery, where nodes' metrics are; by default targets.json "
            "in the service's cache, or prometheus/targets.json in the state directory.",
            show_default=False,
        ),
    ] = None,
    wire_dtype: WireDtypeOption = "float32",
    rounds: RoundsOption = "auto",
    backend: BackendOption = "native",
    activations: ActivationsOption = "float32",
    version: VersionOption = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: LogFormatOption = "text",
) -> None:
    """Keep a mesh of devices together until SIGTERM or Ctrl-C: let them in, hear them, know where each one is.

    Make the mesh first: coordinator-cli mesh init. Then: coordinator --master-ip 0.0.0.0
    """
    configure_logs(log_level, log_format)
    travel = Travel(dtype=wire_dtype, rounds=rounds)  # refuses what cannot be now, not when somebody asks a model
    check_backend(backend)
    check_activations(activations, backend)
    # Here and not at the top: --help must not wait for gRPC.
    from common.trust.certifying_apart import CertifyingApart
    from common.wire.addresses import host_port
    from coordinator.membership.state import default_state_directory
    from coordinator.program.daemon import Coordinator

    share_heaps()
    raise_limit()
    running = Coordinator(
        state_dir or default_state_directory(), host_port(master_ip, master_port), advertise, metrics_port, travel,
        backend, metrics_listen=metrics_listen, metrics_token_file=metrics_token_file, discovery_file=discovery_file,
        certifying=CertifyingApart(), activations=activations, nursery=Nursery.of_program(),
    )  # fmt: skip
    stop_on_signals(running.stop)
    if log_format == "text":  # else the log says so, and is all that there is
        where = f"coordinator: mesh {running.mesh_name} on {running.address}"
        print(plain(f"{where}; let a device in with `coordinator-cli mesh invite`"), file=sys.stderr, flush=True)
        if running.metrics_page is not None:
            print(plain(f"coordinator: metrics on {running.metrics_page.url}"), file=sys.stderr, flush=True)
    elif running.metrics_page is not None:
        log.info("%s", entry("serving metrics", address=running.metrics_page.url))
    running.wait()


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(app, "coordinator")

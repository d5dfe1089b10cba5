"""The `shardnode` program: flags to a NodeConfig, a node until SIGTERM, errors as one line and an exit code."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from common.errors import InputError
from common.machine.descriptors import raise_limit
from common.program.command_line import CONTEXT_SETTINGS, run_process
from common.program.lifecycle import stop_on_signals
from common.program.log_options import LogFormatOption
from common.program.logs import configure_logs, entry
from common.program.memory_flags import (
    MemoryWindowOption,
    PageCacheOption,
    ReadBytesOption,
    ReadsInFlightOption,
    ReadTimeoutOption,
    WindowBytesOption,
    weight_memory,
)
from common.program.metrics_flags import MetricsListenOption, MetricsPortOption, MetricsTokenOption
from common.program.options_file import use_options_file
from common.program.other_verbs import verbs_with
from common.program.path_options import address_option, path_option
from common.program.secret_text import STDIN, text_from
from common.program.sizes import parse_size
from common.program.version import VersionOption
from common.wording import plain
from shardnode.config import NodeConfig, check_before_start

if TYPE_CHECKING:  # it imports gRPC and numpy, and --help must not wait for that
    from shardnode.run import RunningNode

log = logging.getLogger(__name__)

SERVES = "without a verb it serves: shardnode --slice-dir DIR, or as a member of a mesh shardnode --config FILE"
INSECURE = "--insecure: whoever reaches this address sees and changes all traffic"
MEANT = {
    **dict.fromkeys(("serve", "server", "start", "run", "up", "daemon", "worker"), SERVES),
    **dict.fromkeys(("invite", "init", "nodes", "load", "status"), "on the coordinator's device type coordinator-cli"),
    "version": "--version is what you mean: shardnode --version", "help": "--help is what you mean: shardnode --help",
}  # fmt: skip
"""Verbs that there are not, and what to type."""

app = typer.Typer(
    cls=verbs_with(MEANT), context_settings=CONTEXT_SETTINGS, rich_markup_mode=None, invoke_without_command=True
)


@app.callback()
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        path_option(
            help="TOML file with these options by their names; flags go before it. `shardnode join` writes one.",
            callback=use_options_file,
            is_eager=True,
        ),
    ] = None,
    slice_dir: Annotated[
        Path | None,
        path_option(
            help="Directory of one slice, such as MODEL/split/node0; without, a member serves what it is sent.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        str, address_option(help="Where to listen: host:port (port 0: any free one) or unix:/path.")
    ] = "127.0.0.1:0",
    rounds_port: Annotated[
        int | None,
        typer.Option(
            help="Port for rounds in frames, on the host of --listen, which are several times as quick; 0: any free "
            "one. Default: 10 above that of --listen in a mesh, else any free one.",
            show_default=False,
        ),
    ] = None,
    memory_window: MemoryWindowOption = None,
    window_bytes: WindowBytesOption = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory of this process, such as 2GB, or auto (what is free): after window, keys and values, "
            "weights stay in memory as far as it goes.",
            show_default=False,
        ),
    ] = None,
    kv_budget_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory of keys and values, all sequences together, such as 512MB. Default 1 GiB; with a budget, "
            "a quarter of it if that is less.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that compute; 0: one per usable processor.")] = 0,
    backend: Annotated[
        str, typer.Option(help="What computes: native (kernels for this processor), or torch, to compare with.")
    ] = "native",
    use_gpu: Annotated[bool, typer.Option("--use-gpu", help="Compute on CUDA, with torch.")] = False,
    metrics_port: MetricsPortOption = None,
    metrics_listen: MetricsListenOption = "",
    metrics_token_file: MetricsTokenOption = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen without TLS where others can reach it. Trusted networks only."),
    ] = False,
    page_cache: PageCacheOption = "auto",
    reads_in_flight: ReadsInFlightOption = 0,
    read_bytes: ReadBytesOption = None,
    read_timeout_seconds: ReadTimeoutOption = 60.0,
    coordinator: Annotated[
        str,
        typer.Option(help="host:port of the coordinator of this node's mesh.", show_default=False),
    ] = "",
    advertise: Annotated[
        str,
        typer.Option(
            help="host:port where the coordinator reaches this node, if not where it listens (a forwarded port).",
            show_default=False,
        ),
    ] = "",
    data_dir: Annotated[
        Path | None, path_option(help="Where a member keeps its identity and its slices.", show_default=False)
    ] = None,
    keep_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Of weights that no slice here needs, what may stay on the disk for another plan of their model, such "
            "as 2GB; they go first when room is wanted. Default: as much as the largest slice.",
            show_default=False,
        ),
    ] = None,
    version: VersionOption = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: LogFormatOption = "text",
) -> None:
    """Serve one slice of a model to a coordinator until SIGTERM or Ctrl-C.

    Examples: shardnode --slice-dir models/my-model/split/node0 --listen 127.0.0.1:50051

    shardnode join TOKEN, then: shardnode --config FILE; what it serves comes from its coordinator
    """
    if context.invoked_subcommand is not None:
        return
    configure_logs(log_level, log_format)
    node_config = NodeConfig(
        slice_directory=slice_dir, listen=listen, rounds_port=rounds_port, memory_budget=memory_budget,
        kv_budget_bytes=None if kv_budget_bytes is None else parse_size(kv_budget_bytes, "--kv-budget-bytes"),
        thread_count=threads, backend=backend, use_gpu=use_gpu, metrics_port=metrics_port,
        metrics_listen=metrics_listen, metrics_token_file=metrics_token_file, insecure=insecure,
        coordinator=coordinator, data_directory=data_dir, advertise=advertise,
        keep_bytes=None if keep_bytes is None else parse_size(keep_bytes, "--keep-bytes"),
        weights=weight_memory(
            memory_window=memory_window, window_bytes=window_bytes, page_cache=page_cache,
            reads_in_flight=reads_in_flight, read_bytes=read_bytes, read_timeout_seconds=read_timeout_seconds,
        ),
    )  # fmt: skip
    check_before_start(node_config)
    raise_limit()
    # Here and not at the top: it imports gRPC and numpy, and --help must not wait for that.
    from shardnode.run import RunningNode

    node = RunningNode(node_config)
    stop_on_signals(node.stop)
    (_log_start if log_format == "json" else _tell_start)(node, insecure)
    node.wait()


def _tell_start(node: RunningNode, insecure: bool) -> None:
    """Say on stderr what this node serves and where."""
    if insecure:
        print(plain(f"shardnode: warning: {INSECURE}"), file=sys.stderr)
    print(plain(f"shardnode: serving {node.served} on {node.address}"), file=sys.stderr, flush=True)
    if node.metrics_page is not None:
        print(plain(f"shardnode: metrics on {node.metrics_page.url}"), file=sys.stderr, flush=True)


def _log_start(node: RunningNode, insecure: bool) -> None:
    """Have the log say it, which says already what is served: programs read every line there is."""
    if insecure:
        log.warning("%s", entry("listening without TLS", error=INSECURE))
    if node.metrics_page is not None:
        log.info("%s", entry("serving metrics", address=node.metrics_page.url))


@app.command()
def join(
    token: Annotated[
        str,
        typer.Argument(
            help="What `coordinator-cli mesh invite` has printed; - reads it from stdin, where no other user of this "
            "machine sees it.",
            show_default=False,
        ),
    ] = "",
    token_file: Annotated[
        Path | None, path_option(help="Read the token from this file, or from stdin if it is -.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="What the node is called; the host's name by default.")] = "",
    listen: Annotated[str, typer.Option(help="Where the node will listen for its coordinator.")] = "0.0.0.0:50051",
    data_dir: Annotated[
        Path | None, path_option(help="Where identity and slices are kept, if not in the usual directory.")
    ] = None,
    metrics_listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Where observers of the mesh will read metrics, such as 0.0.0.0:9400.",
            show_default=False,
        ),
    ] = "",
    measure: Annotated[
        bool, typer.Option(help="Measure memory, processor and disk now, in some seconds; else when a plan is made.")
    ] = True,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:  # fmt: skip
    """Join a mesh: get a certificate from its coordinator and write the config file of this node. Once per device."""
    configure_logs(log_level)
    from common.compute.device_speeds import device_speeds
    from shardnode.membership.join import default_data_directory, join_mesh, name_of_this_device

    directory = data_dir or default_data_directory()
    joined = join_mesh(_token(token, token_file), name or name_of_this_device(), directory, listen, metrics_listen)
    print(plain(f"joined mesh {joined.mesh} as {joined.name}"), file=sys.stderr)
    if measure:
        try:
            words = device_speeds(directory, lambda text: print(plain(text), file=sys.stderr)).in_words()
        except (OSError, InputError) as error:  # it has joined all the same
            reason = getattr(error, "strerror", None) or error
            words = f"not measured ({reason}); that is done again when a plan is made"
        print(plain(words), file=sys.stderr)
    print(plain(f"start it: shardnode --config {shlex.quote(str(joined.config))}"), file=sys.stderr)


def _token(typed: str, place: Path | None) -> str:
    """Return the token, wherever it is. Raises: InputError: there is none, there are two, or it cannot be read."""
    if bool(typed) == (place is not None):
        raise InputError("which token? Name one: shardnode join TOKEN, shardnode join - (from stdin), or --token-file "
                         "FILE")  # fmt: skip
    if place is not None:
        return text_from(place, "--token-file")
    return text_from(typed, "TOKEN") if typed == STDIN else typed


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(app, "shardnode")

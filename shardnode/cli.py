"""The `shardnode` program: flags to a NodeConfig, a node until SIGTERM, errors as one line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from common.command_line import CONTEXT_SETTINGS, run_process
from common.lifecycle import stop_on_signals
from common.logs import configure_logs
from common.memory_flags import (
    MemoryWindowOption,
    PageCacheOption,
    ReadBytesOption,
    ReadsInFlightOption,
    ReadTimeoutOption,
    WindowBytesOption,
    weight_memory,
)
from shardnode.config import NodeConfig

app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)


@app.command()
def serve(
    slice_dir: Annotated[Path, typer.Option(help="Directory of one slice, such as MODEL/split/node0.")],
    listen: Annotated[
        str, typer.Option(help="Where to listen: host:port (port 0: any free one) or unix:/path.")
    ] = "127.0.0.1:0",
    memory_window: MemoryWindowOption = None,
    window_bytes: WindowBytesOption = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            help="Most memory of this process, such as 2GB, or auto (what is free): after window, keys and values, "
            "weights stay in memory as far as it goes.",
            show_default=False,
        ),
    ] = None,
    kv_budget_bytes: Annotated[
        int | None,
        typer.Option(
            help="Most bytes of keys and values, all sequences together. Default 1 GiB; with a budget, a quarter of "
            "it if that is less.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that compute; 0: one per usable processor.")] = 0,
    use_gpu: Annotated[bool, typer.Option("--use-gpu", help="Compute on CUDA.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1; 0: any free one.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen without TLS where others can reach it. Trusted networks only."),
    ] = False,
    page_cache: PageCacheOption = "auto",
    reads_in_flight: ReadsInFlightOption = 0,
    read_bytes: ReadBytesOption = None,
    read_timeout_seconds: ReadTimeoutOption = 60.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve one slice of a model to a coordinator until SIGTERM or Ctrl-C.

    Example: shardnode --slice-dir models/my-model/split/node0 --listen 127.0.0.1:50051
    """
    configure_logs(log_level)
    config = NodeConfig(
        slice_directory=slice_dir, listen=listen, memory_budget=memory_budget, kv_budget_bytes=kv_budget_bytes,
        thread_count=threads, use_gpu=use_gpu, metrics_port=metrics_port, insecure=insecure,
        weights=weight_memory(
            memory_window=memory_window, window_bytes=window_bytes, page_cache=page_cache,
            reads_in_flight=reads_in_flight, read_bytes=read_bytes, read_timeout_seconds=read_timeout_seconds,
        ),
    )  # fmt: skip
    # Here and not at the top: it imports torch, and --help must not wait for that.
    from shardnode.run import RunningNode

    node = RunningNode(config)
    stop_on_signals(node.stop)
    if insecure:
        print(
            "shardnode: warning: --insecure: whoever reaches this address sees and changes all traffic", file=sys.stderr
        )
    print(f"shardnode: serving {slice_dir} on {node.address}", file=sys.stderr, flush=True)
    if metrics_port is not None:
        print(f"shardnode: metrics on http://127.0.0.1:{node.metrics_port}/metrics", file=sys.stderr, flush=True)
    node.wait()


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(app, "shardnode")

"""Does an operator get metrics of a mesh from elsewhere with what the pages say? Whole programs, options in TOML files.

Covers: init, coordinator, join, shardnode, invite --observer, a scrape as printed, nodes, remove; a token.
Does not cover: who else is refused (tests/contract/test_metrics_access.py), Prometheus itself.
"""

from __future__ import annotations

import json
import re
import signal
import ssl
from contextlib import closing
from pathlib import Path

from common.errors import EXIT_INPUT, EXIT_TRUST
from coordinator.program.daemon import Coordinator
from tests.e2e.conftest import RunHere
from tests.support.cli import Running, Shell
from tests.support.free_ports import free_place
from tests.support.scraping import Scraped, scrape
from tests.support.waiting import wait_until

LIMIT_SECONDS = 30.0
TOKEN = "a-token-of-the-operator"


def metrics_port(running: Running) -> int:
    """Return the port of a page for others, which a program says when it listens."""
    said = re.compile(r"metrics on https://0\.0\.0\.0:(\d+)/metrics")
    wait_until(
        lambda: said.search(running.err) or running.process.poll() is not None, limit_seconds=LIMIT_SECONDS, what="it"
    )
    found = said.search(running.err)
    assert found, running.err
    return int(found[1])


def as_printed(lines: str) -> tuple[ssl.SSLContext, str]:
    """Return how a scrape job connects that has these lines, and which name it expects."""
    values = dict(re.findall(r'^  (\w+): (".*")$', lines, re.MULTILINE))
    context = ssl.create_default_context(cafile=json.loads(values["ca_file"]))
    context.load_cert_chain(json.loads(values["cert_file"]), json.loads(values["key_file"]))
    assert lines.startswith("scheme: https\ntls_config:\n")
    return context, json.loads(values["server_name"])


def end_all(shell: Shell) -> None:
    """Tell every program that runs to end, and see that it does."""
    for running in shell.running():
        running.process.send_signal(signal.SIGTERM)
        assert running.finish(LIMIT_SECONDS).code == 0, running.err


def test_an_observer_reads_a_mesh_until_it_is_removed(shell: Shell, here: RunHere) -> None:
    """Both programs, one scrape job; a token that others could read is no token."""
    state, data, out = shell.home / "state", shell.home / "data", shell.home / "observer"
    at = ("--state-dir", str(state))
    assert here("coordinator-cli", "mesh", "init", *at).code == 0
    token, config = shell.home / "token", shell.home / "coordinator.toml"
    token.write_text(TOKEN)
    token.chmod(0o644)
    config.write_text(
        f'master-port = 0\nstate-dir = "{state}"\nmetrics-listen = "0.0.0.0:0"\nmetrics-token-file = "{token}"\n'
    )
    refused = shell.run("coordinator", "--config", str(config))
    assert "chmod 600" in refused.error_line("coordinator", EXIT_TRUST)
    token.chmod(0o600)
    coordinator = shell.start("coordinator", "--config", str(config))
    ports = [metrics_port(coordinator)]
    command = here("coordinator-cli", "mesh", "invite", *at).out.split()
    joined = here(
        "shardnode", *command[1:], "--name", "kitchen", "--listen", "127.0.0.1:0", "--data-dir", str(data),
        "--metrics-listen", "0.0.0.0:0", "--no-measure",
    )  # fmt: skip
    assert joined.code == 0, joined.err
    assert 'metrics-listen = "0.0.0.0:0"' in (data / "shardnode.toml").read_text()
    ports.append(metrics_port(shell.start("shardnode", "--config", str(data / "shardnode.toml"))))
    invited = here("coordinator-cli", "mesh", "invite", "--observer", "prometheus", "--out", str(out), *at)
    assert invited.code == 0, invited.err
    context, name = as_printed(invited.out)

    def scraped(port: int) -> Scraped:
        return scrape(port, context, name=name)

    for port in ports:
        wait_until(lambda port=port: scraped(port).status == 200, limit_seconds=LIMIT_SECONDS, what="a page")
    assert [scrape(port, ssl.create_default_context(cafile=out / "authority.pem"), TOKEN).status for port in ports] == [
        200, 401,
    ]  # fmt: skip
    assert re.search(r"^prometheus +reads metrics until 20", here("coordinator-cli", "nodes", *at).out, re.MULTILINE)
    assert here("coordinator-cli", "mesh", "remove", "prometheus", *at).code == 0
    assert scraped(ports[0]).status == 403
    wait_until(lambda: scraped(ports[1]).status == 403, limit_seconds=LIMIT_SECONDS, what="a node hears of it")
    end_all(shell)
    assert TOKEN not in coordinator.err


def test_an_invitation_that_cannot_be_written_makes_no_certificate(here: RunHere, tmp_path: Path) -> None:
    """It would take another one's place; options of the two kinds of invitation are told apart."""
    at = ("--state-dir", str(tmp_path / "state"))
    assert here("coordinator-cli", "mesh", "init", *at).code == 0
    (tmp_path / "file").write_text("")
    with closing(Coordinator(tmp_path / "state", free_place())):
        for words in (
            ("--observer", "prometheus", "--out", str(tmp_path / "file")), ("--observer", "prometheus"),
            ("--observer", "prometheus", "--out", str(tmp_path / "out"), "--lifetime", "2h"),
            ("--observer", "prometheus", "--out", str(tmp_path / "out"), "--valid-days", "0"),
            ("--out", str(tmp_path / "out")), ("--valid-days", "7"),
        ):  # fmt: skip
            here("coordinator-cli", "mesh", "invite", *words, *at).error_line("coordinator-cli", EXIT_INPUT)
        assert json.loads(here("coordinator-cli", "nodes", "--json", *at).out)["observers"] == []

"""Do the services serve metrics to others under their units' hardening, by the steps of deploy/README.md?

Covers: `metrics-listen` and a token in both configurations, an observer's files for another user, removal.
Does not cover: who else is refused (tests/contract/test_metrics_access.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.systemd_machine import ADDRESS, PYTHON, Machine
from tests.support.systemd_services import LIMIT_SECONDS, NODE_CONFIG, PROGRAMS, SERVICES, STATE, wait_until_alive
from tests.support.waiting import wait_until

CLI = f"{PROGRAMS}/coordinator-cli"
COORDINATOR_CONFIG, TOKEN_FILE = "/etc/shardmesh/coordinator.toml", "/etc/shardmesh/metrics-token"
OBSERVER, USER = "/etc/observer", "games"
"""Stands for Prometheus' own user, who is no user of ours."""
PORTS = {"coordinator": 29510, "node": 9400}
SCRAPE = """
import http.client, pathlib, ssl, sys
host, port, how = sys.argv[1:]
context = ssl.create_default_context(cafile="/etc/observer/authority.pem")
headers = {}
if how == "certificate":
    context.load_cert_chain("/etc/observer/observer.pem", "/etc/observer/observer.key")
if how == "token":
    headers["Authorization"] = "Bearer " + pathlib.Path("/etc/shardmesh/metrics-token").read_text().strip()
class Connection(http.client.HTTPSConnection):
    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = context.wrap_socket(self.sock, server_hostname="metrics.shardmesh")
connection = Connection(host, int(port), timeout=10)
connection.request("GET", "/metrics", headers=headers)
answer = connection.getresponse()
print(answer.status, "rss_bytes" in answer.read().decode())
"""


@pytest.fixture
def watched(machine: Machine) -> Iterator[Machine]:
    """Return the machine with both pages for others, and an observer's files."""
    before = {path: machine.must("cat", path) for path in (COORDINATOR_CONFIG, NODE_CONFIG)}
    token = f'metrics-token-file = "{TOKEN_FILE}"\n'
    machine.write(TOKEN_FILE, "a-token-that-the-operator-made\n")
    machine.must("chown", "root:shardmesh", TOKEN_FILE)
    machine.must("chmod", "640", TOKEN_FILE)
    sample = before[COORDINATOR_CONFIG].replace("metrics-port = 29510\n", "")
    machine.write(COORDINATOR_CONFIG, f'{sample}metrics-listen = "0.0.0.0:{PORTS["coordinator"]}"\n{token}')
    machine.write(NODE_CONFIG, f'{before[NODE_CONFIG]}metrics-listen = "0.0.0.0:{PORTS["node"]}"\n{token}')
    machine.must("systemctl", "restart", *SERVICES)
    wait_until_alive(machine)
    machine.must("install", "-d", "-o", USER, "-g", USER, "-m", "700", OBSERVER)
    machine.must(CLI, "mesh", "invite", "--observer", "prometheus", "--out", OBSERVER, "--state-dir", STATE)
    yield machine
    for path, text in before.items():
        machine.write(path, text)
    machine.must("rm", "-r", OBSERVER, TOKEN_FILE)
    machine.must("systemctl", "restart", *SERVICES)
    wait_until_alive(machine)


def scraped(machine: Machine, of: str, how: str) -> str:
    """Return a page's status, and whether there are series on it."""
    return machine.must(f"{PYTHON}/bin/python3", "-c", SCRAPE, ADDRESS, str(PORTS[of]), how).strip()


def test_services_serve_metrics_to_an_observer_and_to_a_token(watched: Machine) -> None:
    """Though root typed the command, another user reads the files; nobody else is answered, and removal holds."""
    for name in ("authority.pem", "observer.pem", "observer.key"):
        assert watched.must("stat", "-c", "%U %a", f"{OBSERVER}/{name}").split() == [USER, "600"]
    for of in PORTS:
        wait_until(
            lambda of=of: scraped(watched, of, "certificate") == "200 True", limit_seconds=LIMIT_SECONDS, what=of
        )
        assert scraped(watched, of, "token") == "200 True", watched.journal("coordinator")
        assert scraped(watched, of, "nothing") == "401 False"
    watched.must_as_service_user(CLI, "mesh", "remove", "prometheus", "--state-dir", STATE)
    assert scraped(watched, "coordinator", "certificate") == "403 False"
    wait_until(lambda: scraped(watched, "node", "certificate") == "403 False", limit_seconds=LIMIT_SECONDS, what="it")

"""A real Prometheus with the configuration of deploy/prometheus, on a host of its own network.

    with PrometheusServer(shell, hosts, "desk", directory, places) as server:
        server.value('up{job="shardmesh-coordinator"}')

Covers: deploy/prometheus as an operator copies it, but for where files and the coordinator are and for times, which are
shortened in the copy (`shortened`); asking it over its HTTP interface.
Does not cover: what is scraped (observed_mesh.py), waiting until something is so (waiting.py).
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from tests.support.cli import Running, Shell
from tests.support.network_hosts import NetworkHosts
from tests.support.waiting import wait_until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
PORT = 9090
LIMIT_SECONDS = 10.0
RANGE = "6s"
"""Stands for every range of minutes in rules: six scrapes."""
SHORTER = {
    r"^(\s+for:) \d+m$": r"\1 1s",
    r"^(\s+keep_firing_for:) \d+m$": r"\1 2s",
    r"\[\d+m\]": f"[{RANGE}]",
    r"offset \d+m": "offset 8s",
}


@dataclass(frozen=True, kw_only=True)
class Places:
    """What an operator would have put where the configuration says."""

    observer: Path
    """Directory of authority.pem, observer.pem and observer.key."""
    targets: Path
    """The coordinator's file of targets."""
    coordinator: str
    """host:port of its metrics page."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One series at an instant."""

    labels: Mapping[str, str]
    value: float


def why_no_prometheus() -> str:
    """Return why there can be no Prometheus here; empty when there can."""
    return "" if shutil.which("prometheus") else "Prometheus is not here (Debian's package prometheus)"


class PrometheusServer:
    """Runs until it is closed."""

    def __init__(self, shell: Shell, hosts: NetworkHosts, host: str, directory: Path, places: Places) -> None:
        """Start it. Args: directory: for its copy of the rules and its data."""
        self._hosts, self._host = hosts, host
        shutil.copytree(DEPLOY / "rules", directory / "rules")
        for path in (directory / "rules").iterdir():
            path.write_text(shortened(path.read_text()))
        configuration = directory / "prometheus.yml"
        configuration.write_text(_placed((DEPLOY / "prometheus.yml").read_text(), directory, places))
        self.running: Running = shell.start_command([
            *hosts.inside(host), "prometheus", f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{PORT}",
        ])  # fmt: skip
        wait_until(self._is_ready, limit_seconds=30.0, what="Prometheus is ready")

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression gives now. Raises: AssertionError: it is none."""
        result = self._ask("query", query=expression)
        if result["resultType"] == "scalar":
            return [Sample(labels={}, value=float(result["result"][1]))]
        return [Sample(labels=one["metric"], value=float(one["value"][1])) for one in result["result"]]

    def value(self, expression: str) -> float:
        """Return the one value of an expression, or the sum of several; 0 of none."""
        return sum(sample.value for sample in self.query(expression))

    def firing(self, alert: str, **labels: str) -> bool:
        """Tell whether an alert fires with these labels."""
        return any(
            one["state"] == "firing" and labels.items() <= one["labels"].items() and one["labels"]["alertname"] == alert
            for one in self._ask("alerts")["alerts"]
        )

    def all_firing(self) -> set[str]:
        """Return the names of all alerts that fire."""
        return {one["labels"]["alertname"] for one in self._ask("alerts")["alerts"] if one["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule as Prometheus sees it."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return every target that is scraped."""
        targets: list[dict[str, Any]] = self._ask("targets", state="active")["activeTargets"]
        return targets

    def close(self) -> None:
        """End it."""
        if self.running.process.poll() is None:
            self.running.process.terminate()
            self.running.process.wait(30)

    def _is_ready(self) -> bool:
        assert self.running.process.poll() is None, self.running.err
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _ask(self, what: str, **parameters: str) -> Any:
        status, content = self._get(f"/api/v1/{what}?{urlencode(parameters)}")
        answer = json.loads(content)
        assert (status, answer["status"]) == (200, "success"), (parameters, answer)
        return answer["data"]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        connection.sock = self._hosts.connect(self._host, PORT, LIMIT_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def __enter__(self) -> PrometheusServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shortened(rules: str) -> str:
    """Return a file of rules that looks at seconds where it says minutes; days stay, of which there is less."""
    for pattern, shorter in SHORTER.items():
        rules = re.sub(pattern, shorter, rules, flags=re.MULTILINE)
    return rules


def _placed(configuration: str, directory: Path, places: Places) -> str:
    for said, meant in {
        "/etc/prometheus/shardmesh/rules": str(directory / "rules"),
        "/etc/prometheus/shardmesh": str(places.observer),
        "/var/cache/shardmesh-coordinator/targets.json": str(places.targets),
        "127.0.0.1:29510": places.coordinator,
        "scrape_interval: 5s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }.items():
        assert said in configuration, said
        configuration = configuration.replace(said, meant)
    return configuration

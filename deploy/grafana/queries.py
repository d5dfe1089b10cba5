"""How is Prometheus asked, for one mesh, one of its nodes or one model?

Covers: the few forms that questions have: now, per second, a mean, a quantile; each within a scope.
Does not cover: what is asked (mesh_dashboard.py, node_dashboard.py, model_dashboard.py).
"""

from __future__ import annotations

from dataclasses import dataclass

INTERVAL = "$__rate_interval"


@dataclass(frozen=True)
class Scope:
    """Series that match `matchers`, such as mesh="$mesh"."""

    matchers: str

    def at_once(self, name: str, matching: str = "") -> str:
        """Return the series as they are."""
        return self._matching(name, matching)

    def total(self, name: str, by: str = "") -> str:
        """Return the sum of gauges, by the labels of `by` where there are some."""
        return f"sum{_by(by)} ({self.at_once(name)})"

    def rate(self, name: str, by: str = "", matching: str = "") -> str:
        """Return how fast counters grow, per second, summed by the labels of `by`."""
        return f"sum{_by(by)} ({self._rate(name, matching)})"

    def quantile(self, share: float, name: str, by: str = "") -> str:
        """Return below which value the share of a histogram's observations was; `name` is that of the histogram."""
        labels = f"{by}, le" if by else "le"
        return f"histogram_quantile({share:g}, sum by ({labels}) ({self._rate(f'{name}_bucket')}))"

    def mean(self, name: str, by: str = "", matching: str = "") -> str:
        """Return the mean of a histogram's observations."""
        return f"{self.rate(f'{name}_sum', by, matching)} / {self.rate(f'{name}_count', by, matching)}"

    def during(self, name: str, by: str = "", matching: str = "") -> str:
        """Return by how much counters grew in all the time that is looked at."""
        return f"sum{_by(by)} (increase({self._matching(name, matching)}[$__range]))"

    def _rate(self, name: str, matching: str = "") -> str:
        return f"rate({self._matching(name, matching)}[{INTERVAL}])"

    def _matching(self, name: str, matching: str) -> str:
        return f"{name}{{{', '.join(filter(None, (self.matchers, matching)))}}}"


def used_by(nodes: Scope) -> str:
    """Return the memory of nodes' processes: shared pages by parts, or whole where no system tells the parts."""
    return f"{nodes.at_once('shardmesh_node_pss_bytes')} > 0 or {nodes.at_once('shardmesh_node_rss_bytes')}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


MESH = Scope('mesh="$mesh"')
NODE = Scope('mesh="$mesh", node="$node"')
MODEL = Scope('mesh="$mesh", model="$model"')

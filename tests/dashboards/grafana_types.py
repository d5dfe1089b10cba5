"""Is a dashboard what Grafana's own types allow?

Covers: `@grafana/schema` and TypeScript from npm, fetched once into a kept place; `satisfies Dashboard`, and the
options and field configuration of each panel by the types of its kind.
Does not cover: PromQL, which is text to Grafana (tests/unit/test_dashboards.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.fetched_packages import fetch
from tests.support.series_names import panels_of
from tests.support.source_files import REPOSITORY

PACKAGES = ("@grafana/schema@13.2.3", "typescript@7.0.2")
PLACE = Path(os.environ.get("SHARDMESH_GRAFANA_TYPES", REPOSITORY / "models/grafana-types"))
LIMIT_SECONDS = 180.0
KINDS = {"timeseries": "TimeSeries", "stat": "Stat", "bargauge": "BarGauge", "table": "Table", "text": "Text"}
PREFACE = """import type { Dashboard } from '@grafana/schema';
// JSON has texts where Grafana's types have enumerations of texts.
type Plain<T> = T extends string ? `${T}` : T extends (infer E)[] ? Plain<E>[]
    : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""
IMPORT = "import type * as {0} from '@grafana/schema/dist/esm/raw/composable/{1}/panelcfg/x/{0}PanelCfg_types.gen';"


def types_directory() -> Path:
    """Return where the packages are, fetched the first time; never there in part. Raises: Unreachable."""
    if not PLACE.is_dir():
        PLACE.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".grafana-types-", dir=PLACE.parent))
        try:
            (building / "package.json").write_text('{"private": true}\n')
            command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
            fetch(command, ", ".join(PACKAGES), limit_seconds=LIMIT_SECONDS, directory=building)
            building.rename(PLACE)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return PLACE


def complaints(dashboards: Mapping[str, dict[str, Any]], directory: Path) -> list[str]:
    """Return what the compiler has to say of dashboards by name; `directory` is a scratch place beside the packages.

    Raises: Unreachable: node is not there.
    """
    written = directory / "dashboards.ts"
    written.write_text(as_typescript(dashboards), encoding="utf-8")
    result = subprocess.run(
        ["node", types_directory() / "node_modules/typescript/bin/tsc", "--strict", "--noEmit", "--skipLibCheck",
         "--module", "nodenext", "--moduleResolution", "nodenext", written],
        capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS, cwd=directory,
    )  # fmt: skip
    return [line for line in (result.stdout + result.stderr).splitlines() if line]


def as_typescript(dashboards: Mapping[str, dict[str, Any]]) -> str:
    """Return a program that compiles only when all are as Grafana's types say."""
    lines = [*(IMPORT.format(name, kind) for kind, name in KINDS.items()), PREFACE]
    for name, dashboard in dashboards.items():
        lines.append(f"export const {name} = {json.dumps(dashboard)} satisfies Plain<Dashboard>;")
        for number, panel in enumerate(panels_of(dashboard)):
            kind = KINDS[panel["type"]]
            custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom")
            for part, value in (("Options", panel.get("options")), ("FieldConfig", custom)):
                if value is not None:
                    checked = f"{json.dumps(value)} satisfies Plain<Partial<{kind}.{part}>>;"
                    lines.append(f"export const {name}_{number}_{part} = {checked}")
    return "\n".join(lines) + "\n"

"""The options of programs that serve others, by which their logs are told what to write and how.

Does not cover: logs themselves (logs.py).
"""

from __future__ import annotations

from typing import Annotated

import typer

LogFormatOption = Annotated[
    str, typer.Option(help="Of log lines: text, key=value for people; or json, an object a line, for programs.")
]

"""Makes an ordinary error of a panic in Rust, which no `except Exception` sees, at the edge to a library in Rust.

Does not cover: libraries that run in processes of their own (coordinator/tokenizer/nursery_program.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_MODULE = "pyo3_runtime"
"""Where Rust's PanicException says that it is from; it cannot be imported."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise ValueError for a panic; anything else goes on as it is."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__module__ != _MODULE:
            raise
        raise ValueError(f"the library gave up: {error}") from error

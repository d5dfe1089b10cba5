"""What the tests of an observed mesh share: one mesh that Prometheus watches.

Does not cover: other folders' fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.observed_mesh import ObservedMesh, why_not


@pytest.fixture(scope="session")
def observed() -> Iterator[ObservedMesh]:
    """Return a mesh of two nodes with a model that streams from disk; each test leaves it well."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with ObservedMesh() as made:
        yield made

"""What several contract tests share: one tiny sliced model, and a node that listens over each transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.listening_nodes import TRANSPORTS, ListeningNode, Transport
from tests.support.sliced_models import SlicedModel, slice_model


@pytest.fixture(scope="package")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a tiny model cut for one node; nobody changes it."""
    return slice_model(tmp_path_factory.mktemp("sliced"))


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Return each transport in turn."""
    return request.param


@pytest.fixture
def listening(sliced: SlicedModel, transport: Transport) -> Iterator[ListeningNode]:
    """Return a node that listens."""
    with ListeningNode(sliced, transport) as node:
        yield node

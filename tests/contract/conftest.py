"""What several contract tests share: one tiny sliced model."""

from __future__ import annotations

import pytest

from tests.support.sliced_models import SlicedModel, slice_model


@pytest.fixture(scope="package")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a tiny model cut for one node; nobody changes it."""
    return slice_model(tmp_path_factory.mktemp("sliced"))

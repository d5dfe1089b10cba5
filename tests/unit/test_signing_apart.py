"""Does a key that is kept come back with its request, however slowly the process makes it?

Does not cover: memory (test_program_imports.py), what a request says (test_certificates.py).
"""

from __future__ import annotations

import pytest

from common.errors import ResourceError
from common.trust.signing import make_key
from common.trust.signing_apart import RequestMaker


def test_a_kept_key_is_given_once_however_often_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second wait gave it again, which is an error, and with it no renewal that broke off came to its end."""
    monkeypatch.setattr("common.trust.signing_apart.WAIT_SECONDS", 0.02)
    maker, key = RequestMaker(), make_key()
    waits = 0
    while True:
        try:
            made = maker.make(key)
            break
        except ResourceError:  # not yet
            waits += 1
    maker.close()
    assert waits > 1
    assert made.key == key

"""Does a token come back as it was written, and is every slip of a hand found?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.trust.join_token import JoinToken, parse_token

addresses = st.lists(
    st.builds(
        lambda host, port: f"{host}:{port}", st.sampled_from(["10.0.0.1", "[fe80::1]", "attic.local"]),
        st.integers(1, 65535),
    ),
    min_size=1, max_size=8,
)  # fmt: skip
tokens = st.builds(
    JoinToken, addresses=addresses.map(tuple), authority_fingerprint=st.binary(min_size=32, max_size=32),
    secret=st.binary(min_size=16, max_size=16),
)  # fmt: skip


@given(tokens)
def test_a_token_says_what_was_written(token: JoinToken) -> None:
    """Also with the line breaks and spaces that a terminal puts into what is copied."""
    assert parse_token(token.text) == token
    middle = len(token.text) // 2
    assert parse_token(f"  {token.text[:middle]}\n   {token.text[middle:]} ") == token


@given(tokens, st.data())
def test_a_wrong_or_missing_letter_is_found(token: JoinToken, data: st.DataObject) -> None:
    """Nothing of it is used then."""
    place = data.draw(st.integers(len("shardmesh-"), len(token.text) - 2))
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    changed = token.text[:place] + other + token.text[place + 1 :]
    for wrong in (token.text[:place] + token.text[place + 1 :], *([changed] if changed != token.text else [])):
        with pytest.raises(InputError):
            parse_token(wrong)


@given(st.text(max_size=300))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """In words of ours."""
    for candidate in (text, "shardmesh-" + text):
        with pytest.raises(InputError):
            parse_token(candidate)

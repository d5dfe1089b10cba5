"""Are sizes read as people write them, and is nonsense refused with what would do?"""

from __future__ import annotations

import pytest

from common.errors import InputError
from common.program.sizes import format_size, parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("700000000", 700_000_000), ("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1.5GB", 1_500_000_000),
        ("2G", 2_000_000_000), ("4k", 4000), ("4KiB", 4096), ("1TiB", 1 << 40), ("12B", 12),
    ],
)  # fmt: skip
def test_sizes_of_every_spelling_are_understood(text: str, expected: int) -> None:
    """Decimal units for KB, MB, GB, binary ones for KiB, MiB, GiB; case and a space do not matter."""
    assert parse_size(text, "--x") == expected


@pytest.mark.parametrize("text", ["", "MB", "-5", "5 parsecs", "1e9", "0", "0.2B", "999999999TB", "nan", "1.5.2GB"])
def test_what_is_no_size_is_refused_by_the_options_name(text: str) -> None:
    """One line that names the option and shows how to write it, or what the limits are."""
    with pytest.raises(InputError, match=r"--memory-budget is '.*'; (write bytes or a size such as|it must be above)"):
        parse_size(text, "--memory-budget")


@pytest.mark.parametrize("byte_count", [1, 999, 1000, 12_345, 9_999_999, 10_000_001, 617_000_001, 12_345_678_901])
def test_what_is_printed_is_enough_when_it_is_typed_back(byte_count: int) -> None:
    """A size in a message is rounded up: whoever types it gets at least what was asked for."""
    assert byte_count <= parse_size(format_size(byte_count), "--x") <= byte_count * 1.11 + 1000


@pytest.mark.parametrize(
    ("byte_count", "shown"),
    [(0, "0 kB"), (1200, "1 kB"), (999_600, "1 MB"), (270e6, "270 MB"), (999.6e6, "1.0 GB"), (1.83e12, "1830.0 GB")],
)
def test_a_size_in_a_table_has_few_letters(byte_count: float, shown: str) -> None:
    """And never as many megabytes as make a gigabyte."""
    assert shown_size(byte_count) == shown

"""The number of a bundle: one for each digest, read back exactly, and no number that others give to versions."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.models.version_numbers import DELIVERED, digits_of, number_of

DIGESTS = st.binary(min_size=32, max_size=32).map(lambda content: f"sha256:{content.hex()}")


@given(DIGESTS)
def test_a_number_is_positive_and_exact_wherever_it_is_read(digest: str) -> None:
    """As 64 bits with a sign, which both servers keep, and as a double, which many programs make of JSON's numbers."""
    number = number_of(digest)
    assert 0 < number < 1 << 53
    assert int(float(number)) == number == json.loads(json.dumps(number))
    assert f"{number:x}" == f"1{digest.removeprefix('sha256:')[:13]}"


@given(DIGESTS, DIGESTS)
def test_two_prefixes_have_two_numbers(one: str, other: str) -> None:
    """Numbers are equal where the first 13 digits are, and nowhere else."""
    prefixes = [digest.removeprefix("sha256:")[:13] for digest in (one, other)]
    assert (number_of(one) == number_of(other)) == (prefixes[0] == prefixes[1])


@given(DIGESTS)
def test_a_served_version_says_whose_it_is(digest: str) -> None:
    """Written as the protocol has it, a text; some servers write a number."""
    number = number_of(digest)
    assert digits_of(str(number)) == digits_of(number) == digest.removeprefix("sha256:")[:13]


@given(
    st.one_of(st.none(), st.text(), st.floats(), st.integers(max_value=(1 << 52) - 1), st.integers(min_value=1 << 53))
)
def test_what_others_give_to_versions_is_no_bundle(version: object) -> None:
    """Words, missing ones, and numbers that are counted."""
    assert digits_of(version) is None


@pytest.mark.parametrize(
    "version", ["", "1", "v2", "٤٥٠٣٥٩٩٦٢٧٣٧٠٤٩٦", "4503599627370496.0", " 4503599627370496", "-4503599627370496", True]
)
def test_what_only_looks_like_a_number_is_none(version: object) -> None:
    """Digits of other scripts, signs and spaces are not what a server writes for a folder of ours."""
    assert digits_of(version) is None


def test_a_clock_gives_no_such_number() -> None:
    """Seconds, milliseconds, microseconds and nanoseconds since 1970 are used as versions."""
    now = time.time()
    assert [digits_of(int(now * unit)) for unit in (1, 10**3, 10**6, 10**9)] == [None] * 4
    assert digits_of(DELIVERED) is None

"""Kubernetes quantities, in every form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.api.quantities import cores, finite, memory_bytes, plain


@given(milli=st.integers(1, 9_999_999))
def test_cpu_in_millicores_is_a_thousandth(milli: int) -> None:
    """Both forms of a CPU amount agree."""
    assert cores(f"{milli}m") == milli / 1000
    assert cores(str(milli)) == milli


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [("512Mi", 512 * 2**20), ("1.5Gi", 1.5 * 2**30), ("2G", 2e9), ("1000", 1000), ("3k", 3000), ("1Ti", 2**40)],
)
def test_memory_units_are_binary_only_with_an_i(quantity: str, amount: float) -> None:
    """2G is less than 2Gi."""
    assert memory_bytes(quantity) == amount


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("1", 1.0),
        ("500m", 0.5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("2k", 2000.0),
        ("250000u", 0.25),
        ("1e1", 10.0),
    ],
)
def test_quantities_are_read_in_every_form(quantity: str, amount: float) -> None:
    """The API server may write an amount in another form than the user did."""
    assert cores(quantity) == amount


@pytest.mark.parametrize("quantity", ["", "much", "1x", "m", "1.2.3", ".", "1 Gi", "1\n", "Infinity"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    """A wrong amount is an error, never a silent zero."""
    with pytest.raises(ValueError, match="is not a quantity"):
        cores(quantity)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 4, "0"),
        (5.25, 4, "5.25"),
        (480.0, 4, "480"),
        (0.000123456, 4, "0.0001235"),
        (123456.7, 4, "123457"),
        (12345.0, 4, "12345"),
        (1e15, 6, "1000000000000000"),
        (1e-12, 6, "0"),
        (-0.5, 4, "-0.5"),
        (175.2, 6, "175.2"),
    ],
)
def test_a_number_of_a_status_has_no_exponent(value: float, digits: int, text: str) -> None:
    """Clients read decimals; all digits before the point are there, however many."""
    assert plain(value, digits=digits) == text


@pytest.mark.parametrize(("text", "value"), [("1.5", 1.5), ("1e3", 1000.0), ("", None), (None, None), ("x", None)])
def test_a_number_of_a_status_is_read_or_none(text: str | None, value: float | None) -> None:
    """A status is data from the cluster: whatever stands in it, reading it ends well."""
    assert finite(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_what_is_not_finite_is_no_number(text: str) -> None:
    """It could not be reckoned with."""
    assert finite(text) is None

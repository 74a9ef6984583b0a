"""Kubernetes quantities as numbers, in every form that users and the API server write, and numbers as statuses do."""

import math
import re
from decimal import Decimal

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>[numkMGTPE]|[KMGTPE]i)?", re.ASCII
)
_MOST_DECIMALS = 9
_UNITS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def cores(quantity: str) -> float:
    """Return an amount of CPU, such as `500m`, in cores; raises ValueError when it is no quantity."""
    return _number(quantity)


def memory_bytes(quantity: str) -> float:
    """Return an amount of memory, such as `2Gi`, in bytes; raises ValueError when it is no quantity."""
    return _number(quantity)


def _number(quantity: str) -> float:
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    scale = _UNITS[match["unit"]] if match["unit"] else 1
    return float(Decimal(match["number"]) * scale)


def finite(text: str | None) -> float | None:
    """Return a number of a status; None where it is absent, no number or not finite."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def plain(value: float, *, digits: int = 4) -> str:
    """Return a number as a status has it: at least so many significant digits, and never an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(decimals, _MOST_DECIMALS)}f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text

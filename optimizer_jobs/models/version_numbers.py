"""The number of a bundle, for servers that have positive whole numbers for versions: Triton, OpenVINO Model Server.

It is 2 ** 52 and the first 13 hexadecimal digits of the digest, so that two bundles have two numbers, and a server's
answer says which one it comes from. Programs that keep numbers of JSON as doubles read it exactly, it fits 64 bits
with a sign, and versions that people count or take from a clock (up to microseconds of the year 2112) are not of its
kind. `printf %x` shows the digits, after a 1.
"""

DELIVERED = 1
"""Number of a model as it was delivered, which is no bundle."""

_DIGITS = 13
_FIRST = 1 << 4 * _DIGITS


def number_of(digest: str) -> int:
    """Return the number of a bundle; it is at least 2 ** 52, and less than 2 ** 53.

    Args:
        digest: `sha256:` and 64 hexadecimal digits.
    """
    return _FIRST | int(digest.removeprefix("sha256:")[:_DIGITS], 16)


def digits_of(version: object) -> str | None:
    """Return the first 13 digits of the digest that a served version stands for; None where it is no bundle's.

    Args:
        version: What a server says, which may be anything; the protocol has it as text.
    """
    text = str(version) if isinstance(version, str | int) else ""
    if not (text.isascii() and text.isdecimal()) or len(text) != len(str(_FIRST)):
        return None
    number = int(text)
    return f"{number - _FIRST:0{_DIGITS}x}" if _FIRST <= number < 2 * _FIRST else None

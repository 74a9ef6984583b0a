"""Where and when a window is checked is no part of what its verdict depends on."""

from typing import Any

from retune.plan.hashing import monitoring_hash
from tests import samples

_WATCHED: dict[str, Any] = {"production": {"uri": "pvc://store/production"}, "window": "1h"}


def hashed(**monitoring: Any) -> str:
    """The hash of what a check's verdict depends on."""
    spec = samples.resource(monitoring=_WATCHED | monitoring).spec
    assert spec.monitoring is not None
    return monitoring_hash(spec.monitoring, spec.model, spec.data, "sha256:c")


def test_a_verdict_counts_whatever_host_is_named_meanwhile() -> None:
    """Naming a host, or another one, while a check runs loses no verdict; another window does."""
    assert hashed() == hashed(checkHost="checks") == hashed(checkHost="others")
    assert hashed() != hashed(window="2h")


def test_a_verdict_counts_however_checks_are_spread_meanwhile() -> None:
    """Nor does another moment at which later checks start."""
    assert hashed() == hashed(spread="5m") == hashed(spread="1h")

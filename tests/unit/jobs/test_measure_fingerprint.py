"""What hardware and runtime a number belongs to."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer_jobs.measure import fingerprint as module
from optimizer_jobs.measure.fingerprint import fingerprint


def test_fingerprint_is_the_same_each_time_and_names_the_architecture() -> None:
    """Two looks at one machine agree, and the short form is one word."""
    found = fingerprint()

    assert found == fingerprint()
    assert re.fullmatch(r"[a-z0-9_]+-[a-z0-9]+-[0-9a-f]{8}", found.short)
    assert dict(found.runtimes)["onnxruntime"]


@pytest.mark.parametrize("change", [{"cpu": "other"}, {"cpu_limit": 0.5}, {"runtimes": (("onnxruntime", "0"),)}])
def test_anything_that_changes_numbers_changes_the_short_form(change: dict[str, object]) -> None:
    """Another processor, limit or library version is another fingerprint."""
    found = fingerprint()

    assert replace(found, **change).short != found.short  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "limit"), [("150000 100000", 1.5), ("max 100000", None), ("", None), ("nonsense", None)]
)
def test_cpu_limit_is_read_from_the_container(
    content: str, limit: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quota of the cgroup in cores; no quota or an unreadable file is no limit."""
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(module, "CGROUP", tmp_path)

    assert module.cpu_limit() == limit

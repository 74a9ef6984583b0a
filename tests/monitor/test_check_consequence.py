"""Consequence before movement, on real rows through the real Evidently: what the model ignores raises nothing."""

import numpy as np
import pytest

from optimizer_jobs.commands.check.command import run
from optimizer_jobs.commands.check.consequence import weighed
from optimizer_jobs.commands.check.drift import compare
from optimizer_jobs.commands.check.drift_verdict import judge
from optimizer_jobs.data.uris import resolve
from retune.api.monitoring import Drift
from retune.api.watched import Verdict
from retune.contract.results import CheckResult
from tests.bench.monitoring.worlds import world
from tests.monitor.shop import FIRST, Array, Change, Shop

UNSEEN = slice(10, 30)
"""Twenty of thirty columns, which the model does not look at."""


def shifted(places: slice | list[int], deviations: float) -> Change:
    """Return a change that moves columns by so many standard deviations."""

    def change(inputs: Array) -> Array:
        changed = inputs.copy()
        changed[:, places] += deviations * inputs[:, places].std(axis=0)
        return changed

    return change


def in_other_units(inputs: Array) -> Array:
    """Return rows whose unseen columns are written in thousandths."""
    changed = inputs.copy()
    changed[:, UNSEEN] *= 1000
    return changed


def checked(shop: Shop, change: Change, window: int = FIRST, *, drift: Drift | None = None) -> CheckResult:
    """Return what a window says whose rows were changed."""
    if not (shop.root / "captured").exists() or window != FIRST:
        shop.serve(window, change=change)
    result = run(shop.request(window, drift=drift or Drift(), quality=None))
    assert result.drift is not None
    return result


@pytest.fixture(name="blind")
def _blind(shop: Shop) -> Shop:
    """A shop whose model looks at ten of thirty columns, and whose reference says so."""
    shop.blind_to(UNSEEN)
    shop.refer(measured=True)
    return shop


def test_columns_that_carry_nothing_are_told_and_raise_nothing(blind: Shop) -> None:
    """Two thirds of the columns come in another unit: message and page say so, and the window is clear."""
    result = checked(blind, in_other_units)
    assert result.drift is not None
    assert (result.drift.verdict, result.drift.reason) == (Verdict.CLEAR, "MovedColumnsCarryLittle")
    assert "20 of 30 columns drifted (they carry up to 0% of the answers; limit 20%)" in result.drift.message
    assert "carries nothing, as if multiplied by 1000, like seconds to milliseconds" in result.drift.message
    assert {(each.drifted, each.carries) for each in result.columns[:16]} == {(True, "0")}
    assert result.report is not None
    assert "carry up to 0% of the answers" in resolve(result.report).local.read_text()
    alike = checked(blind, in_other_units, drift=Drift(weigh="Never")).drift
    assert alike is not None
    assert (alike.verdict, alike.reason) == (Verdict.BREACH, "ShareAboveLimit")


def test_one_column_that_carries_much_is_a_breach_by_itself(blind: Shop) -> None:
    """One of thirty columns, by less than half a standard deviation: its number alone would be clear."""
    shares = [share or 0.0 for share in blind._carried().inputs["x"]]
    strongest = int(np.argmax(shares))
    result = checked(blind, shifted([strongest], 0.4))
    assert result.drift is not None
    assert (result.drift.verdict, result.drift.reason) == (Verdict.BREACH, "ShareAboveLimit"), result.drift.message
    assert result.columns[0].name == f"x[{strongest}]"
    assert float(result.columns[0].carries or 0) == shares[strongest]
    alike = checked(blind, np.asarray, drift=Drift(weigh="Never")).drift
    assert alike is not None
    assert alike.verdict is Verdict.CLEAR, alike.message


def test_a_reference_of_an_earlier_release_counts_alike_and_says_so(shop: Shop) -> None:
    """The shop's reference says nothing of what columns carry."""
    result = checked(shop, shifted(slice(8), 1.0))
    assert result.drift is not None
    assert result.drift.verdict is Verdict.BREACH
    assert "Columns count alike: the champion's reference was written before" in result.drift.message
    assert {each.carries for each in result.columns} == {None}


def test_quiet_windows_raise_nothing_whatever_columns_carry() -> None:
    """Shares as unequal as they come, drawn anew for each window: what is not proven is no breach."""
    cancer = world("breast_cancer")
    generator = np.random.default_rng(0)
    before, said = cancer.draw(200, generator), []
    for _ in range(15):
        findings = compare(before, cancer.draw(500, generator), Drift(), names=cancer.columns)
        shares = dict(zip(cancer.inputs, generator.dirichlet(np.full(30, 0.1)), strict=True))
        said.append(judge(weighed(findings, shares), Drift(), samples=500).verdict)
    assert Verdict.BREACH not in said

"""The headline of a window's page says what the verdict says, whatever was counted."""

from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.check.page import _completed, _headline
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

counts = st.integers(1, 200).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(count=counts, hundredths=st.integers(1, 100), drifted=st.booleans())
def test_drift_is_in_the_headline_exactly_where_the_window_is_a_breach(
    count: tuple[int, int], hundredths: int, *, drifted: bool
) -> None:
    """Evidently reports drift where the share of marked columns is not below the one that it is given."""
    marked, share = count[0] / count[1], hundredths / 100
    assert (marked >= _headline(marked, share, drifted=drifted)) is drifted


def test_the_verdict_stands_above_the_page_and_is_no_markup() -> None:
    """Names of columns come from production data."""
    judged = SignalVerdict(verdict=Verdict.BREACH, reason="ShareAboveLimit", message="<b>x</b> by 0.4")
    page = _completed("<html><head><title>t</title></head><body class='a'><div>drawn</div></body></html>", judged)
    assert "<body class='a'><p style=" in page
    assert "Breach: &lt;b&gt;x&lt;/b&gt; by 0.4</p><div>drawn" in page
    assert page.index("Content-Security-Policy") < page.index("<title>")

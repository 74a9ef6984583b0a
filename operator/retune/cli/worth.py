"""What a version is worth, in words: a line for a resource, a section after a run on this machine. Pure."""

from rich.console import Group, RenderableType
from rich.text import Text

from retune.api.quantities import plain
from retune.api.worth import LimitOf, Worth
from retune.cli import figures
from retune.cli.grids import grid
from retune.contract.results import JudgeResult
from retune.contract.worth import JudgedWorth, Span

TITLE = "What it is worth"
NO_LOAD_TEST = "a replay of measured call times as a queue of requests that arrive at random, and no load test"


def line(worth: Worth) -> str:
    """Return what the same traffic needs with a version, as one sentence without a full stop."""
    before, after = figures.decimal(worth.requests_before), figures.decimal(worth.requests_after)
    rates = (
        f"v{worth.version} answers {after} requests a second a process where v{worth.compared_with} answered {before}"
    )
    return f"{rates} (95 % within {limit(worth)}){_replicas(worth)}"


def limit(worth: Worth) -> str:
    """Return the limit of time within which requests are counted."""
    return f"{figures.decimal(worth.limit_ms)} ms"


def _replicas(worth: Worth) -> str:
    if worth.replicas is None or worth.replicas_needed is None:
        return ""
    replicas = f": the same traffic needs {worth.replicas_needed} in place of {worth.replicas} replicas"
    if worth.cost_before is None or worth.cost_needed is None:
        return replicas
    return f"{replicas}, {figures.decimal(worth.cost_needed)} in place of {figures.decimal(worth.cost_before)} a month"


def section(result: JudgeResult) -> RenderableType | None:
    """Return what the judge says of a winner's worth, or why it says nothing; None where nothing won."""
    if result.worth is not None:
        return Group(Text(TITLE, style="bold"), grid(_facts(result.worth)))
    if result.worth_unknown is not None:
        return Group(Text(TITLE, style="bold"), Text(f"nothing is said: {result.worth_unknown}"))
    return None


def _facts(worth: JudgedWorth) -> list[tuple[str, str]]:
    whose = "the limit of the objectives"
    if worth.limit_of is LimitOf.CHAMPION:
        whose = "as by the champion while half busy"
    return [
        ("before", f"{_span(worth.before)} requests a second of one process"),
        ("after", f"{_span(worth.after)}, {_span(worth.ratio)} times as many"),
        ("within", f"{plain(worth.limit_ms)} ms for 95 % of the requests, waiting included, {whose}"),
        ("how", NO_LOAD_TEST),
    ]


def _span(span: Span) -> str:
    return f"{plain(span.value)} [{plain(span.low)}, {plain(span.high)}]"

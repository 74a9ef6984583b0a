"""When a schedule is due: cron expressions of five fields, in a time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


class ScheduleError(ValueError):
    """The expression or the time zone means nothing; the message is a sentence without a full stop."""


def due_since(expression: str, zone: str, *, since: datetime, now: datetime) -> datetime | None:
    """Return the first time after `since` that the schedule names, in UTC; None while it has not come.

    Args:
        expression: Cron expression of five fields.
        zone: Name of a time zone, such as `Europe/Berlin`.
        since: The moment after which a time counts.
        now: The moment of the pass.

    Raises:
        ScheduleError: The expression or the time zone means nothing.
    """
    try:
        moment = next(CronSim(expression, since.astimezone(ZoneInfo(zone))), None)
    except CronSimError as error:
        raise ScheduleError(f"triggers.schedule {expression!r} is no cron expression: {error}") from error
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"triggers.timeZone {zone!r} is not known") from error
    return moment.astimezone(UTC) if moment is not None and moment <= now else None


def seconds_until(expression: str, zone: str, *, now: datetime) -> float | None:
    """Return the seconds until the next time that the schedule names; None where there is none.

    Args:
        expression: Cron expression of five fields.
        zone: Name of a time zone, such as `Europe/Berlin`.
        now: The moment of the pass.
    """
    try:
        moment = next(CronSim(expression, now.astimezone(ZoneInfo(zone))), None)
    except (CronSimError, ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return (moment - now).total_seconds() if moment is not None else None

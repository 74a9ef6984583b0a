"""What the agents in a target's pods tell at `/version`: which bundle is wanted, which one is proved, what is wrong.

Answers are hostile input: their size and time are limited, and nothing of them is believed but short words and URIs.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retune.plan.told import Agent
from retune.signals.bounded import UnreadableError, Web

TIMEOUT_SECONDS = 3.0
"""Longest that an agent may take to answer."""
SIZE_LIMIT = 16 * 1024
"""Bytes of one answer; a larger one is not read."""
_TURN_SECONDS = 5.0
"""Longest that asking one agent may take, with the wait for its turn."""
_AGENTS_AT_ONCE = 32
_FAULT_LIMIT, _URI_LIMIT = 400, 1024
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod whose agent is asked."""

    pod: str
    """Its name."""
    url: str
    """Base URL of the agent."""


class AgentReader:
    """Asks the agents of pods."""

    def __init__(self) -> None:
        self._web = Web(seconds=TIMEOUT_SECONDS, limit=SIZE_LIMIT, at_once=_AGENTS_AT_ONCE)

    async def told(self, pods: Sequence[Asked]) -> list[Agent]:
        """Return what each agent tells, or why it tells nothing, in the order of the pods."""
        return list(await asyncio.gather(*(self._in_turn(pod) for pod in pods)))

    async def close(self) -> None:
        """Close connections."""
        await self._web.close()

    async def _in_turn(self, asked: Asked) -> Agent:
        try:
            async with asyncio.timeout(_TURN_SECONDS), self._web.turns:
                return parse(asked.pod, await self._web.text(f"{asked.url}/version"))
        except TimeoutError:
            return Agent(asked.pod, silent=f"{asked.url} was not read within {_TURN_SECONDS:g} s")
        except UnreadableError as error:
            return Agent(asked.pod, silent=str(error))


def parse(pod: str, text: str) -> Agent:
    """Return what the agent of a pod tells in a `/version`, as far as it is what an agent may say.

    Raises:
        UnreadableError: It is no JSON object.
    """
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("its /version is no JSON") from error
    if not isinstance(told, dict):
        raise UnreadableError("its /version is no JSON object")
    return Agent(
        pod,
        ready=told.get("ready") is True,
        wanted=_text(told, "wanted", _URI_LIMIT),
        served=_matching(told, "served", _DIGEST),
        fault=_line(told),
        reason=_matching(told, "reason", _REASON),
    )


def _text(told: dict[str, Any], name: str, limit: int) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= limit else None


def _matching(told: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str | None:
    value = _text(told, name, _URI_LIMIT)
    return value if value is not None and pattern.fullmatch(value) else None


def _line(told: dict[str, Any]) -> str | None:
    """Return the fault on one line of printable characters; something in its place is a fault all the same."""
    fault = told.get("fault")
    if fault is None:
        return None
    words = " ".join(str(fault)[: 2 * _FAULT_LIMIT].split())
    line = "".join(letter for letter in words if letter.isprintable())[:_FAULT_LIMIT]
    return line.rstrip(".") or "it does not say what"

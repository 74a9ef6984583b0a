"""The reader of reasons follows a word to wherever the code can put one."""

from pathlib import Path

import pytest

from tests.unit.docs.reasons import Reader
from tests.unit.docs.sources import modules_of

GROUND = """
from enum import StrEnum

NAMED = "NamedConstant"
WORDS = {1: "InTable"}

class Why(StrEnum):
    MEMBER = "MemberOfEnumeration"
    OTHER = "NeverUsed"

class Held:
    stage: Why
    cause: str

class Refused(Exception):
    def __init__(self, reason, message):
        pass

class Draft:
    def condition(self, kind, status, reason, message):
        pass

def both():
    return "FirstOfPair", "SecondOfPair"
"""


IMPORTS = """
from pack import ground
from pack.ground import NAMED, WORDS, Held, Refused, Why, both
"""


def reasons(tmp_path: Path, text: str) -> set[str]:
    """The reasons in a package of two modules, one of which is this text."""
    package = tmp_path / "pack"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "ground.py").write_text(GROUND)
    (package / "deep" / "more.py").write_text(IMPORTS + text)
    return Reader(modules_of([package])).reasons()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('draft.condition("Ready", True, "ByPosition", "words")', "ByPosition"),
        ('draft.condition("Ready", True, message="words", reason="ByKeyword")', "ByKeyword"),
        ('answer = {"reason": "ByKey", "message": "words"}', "ByKey"),
        ('model.copy(reason="ByUnknownCall")', "ByUnknownCall"),
        ('raise Refused("ByConstructor", "words")', "ByConstructor"),
        ("tell(reason=Why.MEMBER)", "MemberOfEnumeration"),
        ("tell(reason=Why.MEMBER.value)", "MemberOfEnumeration"),
        ("tell(reason=NAMED)", "NamedConstant"),
        ("tell(reason=ground.NAMED)", "NamedConstant"),
        ("draft.condition(1, 2, *both())", "FirstOfPair"),
        ("def f():\n    why, words = both()\n    tell(reason=why)", "FirstOfPair"),
        ('def hold(why):\n    tell(reason=why)\nhold("ThroughParameter")', "ThroughParameter"),
        ('def hold(reason):\n    tell(reason=f"Target{reason}")\nhold("Gone")', "TargetGone"),
        ('tell(reason="Yes" if much else "No")', "No"),
        ('tell(reason=known or "Else")', "Else"),
        ('tell(reason={1: "InWords"}.get(1, "Missing"))', "Missing"),
        ('tell(reason=WORDS.get(1, "Missing"))', "InTable"),
        ('tell(reason="And".join(["Smaller", *(["Faster"] if fast else [])]))', "Faster"),
        ('def f(held):\n    tell(reason=held.cause)\nHeld(1, "ThroughField")', "ThroughField"),
        ("def f(x):\n    tell(reason=x.stage)\nHeld(Why.MEMBER, 1)", "MemberOfEnumeration"),
    ],
)
def test_a_reason_is_found_however_it_is_given(text: str, found: str, tmp_path: Path) -> None:
    """By place, name, key, constant, enumeration, tuple, parameter, field, and put together from parts."""
    assert found in reasons(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        'tell("Elsewhere")',
        'tell(reason="a sentence of words")',
        'draft.condition("Ready", "True", reason=1)',
        'def f():\n    return "NeverCalled"',
        'tell(reason=x == "Compared")',
        'tell(message="Words", reason=unknown)',
    ],
)
def test_nothing_else_is_taken_for_one(text: str, tmp_path: Path) -> None:
    """Kinds, sentences, what is compared with, and words that go nowhere are no reasons."""
    assert reasons(tmp_path, text) == set()


def test_folders_can_be_left_out(tmp_path: Path) -> None:
    """A command line tells reasons and sets none."""
    reasons(tmp_path, 'tell(reason="Here")')
    package = tmp_path / "pack"
    assert Reader(modules_of([package], without=[package / "deep"])).reasons() == set()

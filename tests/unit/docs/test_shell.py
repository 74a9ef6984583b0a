"""The reader of shell scripts finds the commands that a shell would run."""

import pytest

from tests.unit.docs.shell import NotShellError, commands


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("make help", [["make", "help"]]),
        ("make a   # all of it\nmake b", [["make", "a"], ["make", "b"]]),
        ("helm install x \\\n  --set a=b", [["helm", "install", "x", "--set", "a=b"]]),
        ("cd x && ls; pwd || true", [["cd", "x"], ["ls"], ["pwd"], ["true"]]),
        ("A=1 B='x y' run c=d", [["run", "c=d"]]),
        ("run > out.json 2> errors < in", [["run"]]),
        ('run \'it # is\' "a \\"b\\" c" d\\ e', [["run", "it # is", 'a "b" c', "d e"]]),
        ("jq 'a |\n  b' x | sort", [["jq", "a |\n  b", "x"], ["sort"]]),
        ('eval "$(make env)"', [["make", "env"], ["eval", "$(make env)"]]),
        ("apply -f - <<'EOF'\nkind: X\nEOF\nmake a", [["apply", "-f", "-"], ["make", "a"]]),
        ("run x#y", [["run", "x#y"]]),
        ("", []),
    ],
)
def test_commands_are_those_that_a_shell_would_run(script: str, found: list[list[str]]) -> None:
    """Lines that go on, lists, pipes, quotations, substitutions, comments, assignments, redirections, documents."""
    assert list(commands(script)) == found


def test_a_quotation_that_is_not_closed_is_no_shell() -> None:
    """A reader who copies it would wait for its end."""
    with pytest.raises(NotShellError, match="a quotation is not closed: 'x"):
        list(commands("run 'x\nrun y"))

"""Words on the command line: options before and after the command, mistyped ones, and completion in shells."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from retune.cli.completion import script
from retune.cli.main import main, parser
from tests.unit.cli.test_commands import Server, server

__all__ = ["server"]
NAMES = "#!/bin/sh\n[ \"$*\" = '-n ml status -o name' ] && printf 'digits\\ndoves\\n'\n"


@pytest.mark.parametrize("words", [("-n", "ml", "status"), ("status", "-n", "ml"), ("-n", "x", "status", "-n", "ml")])
def test_the_namespace_may_stand_before_or_after_the_command(words: tuple[str, ...]) -> None:
    """What stands after it is nearer and counts."""
    assert parser().parse_args(words).namespace == "ml"


def test_no_namespace_is_that_of_the_kubeconfig() -> None:
    """Nothing is made up."""
    arguments = parser().parse_args(["status"])
    assert (arguments.namespace, arguments.context) == (None, None)


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (("statsu",), "did you mean status?"),
        (("rolback", "digits"), "did you mean rollback?"),
        (("watch", "digits", "--untl", "Promoted"), "did you mean --until?"),
        (("watch", "digits", "--until", "Promotted"), "did you mean Promoted?"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], question: str
) -> None:
    """Commands, options and their values."""
    with pytest.raises(SystemExit):
        main(words)
    assert question in capsys.readouterr().err


def test_a_word_that_is_like_none_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong guess is worse than none."""
    with pytest.raises(SystemExit):
        main(["zzz"])
    assert "did you mean" not in capsys.readouterr().err


def test_a_mistyped_name_is_answered_with_the_one_that_is_there(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are asked of the same namespace."""
    assert main(["status", "digist"]) == 2
    assert "did you mean digits?" in capsys.readouterr().err
    assert len(server.asked) == 2


@pytest.mark.usefixtures("server")
def test_names_alone_are_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each."""
    assert main(["status", "-o", "name"]) == 0
    assert capsys.readouterr().out == "digits\n"


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word, with a `retune` that knows two names in namespace ml."""
    command = folder / "retune"
    command.write_text(NAMES)
    command.chmod(0o755)
    asked = f'COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words)}' if words[-1:] == ("retune",) else ""
    asked = asked or f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
    text = f"{script(parser(), language='bash')}\n{asked}\n_retune\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=path)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_values_and_names(tmp_path: Path) -> None:
    """Names are asked of the namespace that was typed."""
    assert {"status", "approve", "rollback"} <= set(completed(tmp_path, "retune"))
    assert completed(tmp_path, "retune", "roll") == ["rollback"]
    assert completed(tmp_path, "retune", "rollback", "--t") == ["--to"]
    assert completed(tmp_path, "retune", "watch", "--until", "P") == ["Promoted"]
    assert completed(tmp_path, "retune", "completion", "f") == ["fish"]
    assert completed(tmp_path, "retune", "-n", "ml", "approve", "d") == ["digits", "doves"]
    assert completed(tmp_path, "retune", "approve", "d") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_every_command(shell: str) -> None:
    """And take the script, where there is such a shell to ask."""
    text = script(parser(), language=shell)
    assert all(f" {command} " in text for command in ("status", "approve", "versions"))
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)

"""The locks: complete, hashed, free of addresses, and one version of a library everywhere."""

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
NEIGHBOURS = sorted((REPOSITORY / "requirements" / "neighbours").glob("*.txt"))
"""Locks of programs of others that tests start: no process of ours imports anything of them."""
DOCKERFILES = sorted(
    path for top in ("operator", "optimizer_jobs", "examples") for path in (REPOSITORY / top).rglob("*Dockerfile")
)
PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^ ;\\]+)(?P<marker> ;[^\\]*)? \\$")


def pins(lock: Path) -> dict[tuple[str, str], str]:
    """Version by name and environment marker."""
    found = (PIN.match(line) for line in lock.read_text().splitlines())
    return {(pin["name"], pin["marker"] or ""): pin["version"] for pin in found if pin}


@pytest.mark.parametrize("lock", [*LOCKS, *NEIGHBOURS], ids=lambda path: path.stem)
def test_every_line_is_a_pin_or_a_hash(lock: Path) -> None:
    """A lock installs exactly known bytes, and says nothing about the machine that wrote it."""
    lines = lock.read_text().splitlines()
    body = [line for line in lines if not line.startswith("#")]
    strange = [
        line for line in body if not (PIN.match(line) or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line))
    ]
    assert pins(lock)
    assert strange == []
    assert len(lines) - len(body) == 1


QUICKSTARTS = [lock for lock in LOCKS if lock.stem.startswith("server-")]
"""Of servers of others, which want other versions of what is theirs."""


@pytest.mark.parametrize("lock", sorted({*LOCKS} - {*QUICKSTARTS}), ids=lambda path: path.stem)
def test_images_and_host_run_the_same_versions(lock: Path) -> None:
    """What judges a bundle and what serves it differ in no library: the optimizer's lock rules all others."""
    ours, theirs = pins(lock), pins(REPOSITORY / "requirements" / "optimizer.txt")
    differing = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert ours.keys() & theirs.keys()
    assert differing == set()


@pytest.mark.parametrize("lock", QUICKSTARTS, ids=lambda path: path.stem)
def test_quickstarts_run_bundles_with_the_libraries_that_judge_them(lock: Path) -> None:
    """What retune-runtime itself stands on is as in the optimizer's lock, whatever the server brings besides."""
    runtime = tomllib.loads((REPOSITORY / "tools" / "runtime" / "pyproject.toml").read_text())["project"]
    needed = [*runtime["dependencies"], *runtime["optional-dependencies"]["capture"]]
    names = {re.split(r"[<>=]", line, maxsplit=1)[0] for line in needed}
    ours = {name: version for (name, _), version in pins(lock).items() if name in names}
    theirs = {name: version for (name, _), version in pins(REPOSITORY / "requirements" / "optimizer.txt").items()}
    assert ours == {name: theirs[name] for name in names}


def test_every_quickstart_has_a_lock() -> None:
    """And no lock is left of one that is gone."""
    folders = {path.parent.name for path in (REPOSITORY / "examples" / "servers").glob("*/requirements.txt")}
    assert {lock.stem.removeprefix("server-") for lock in QUICKSTARTS} == folders


def test_every_direct_dependency_is_locked() -> None:
    """A dependency added to pyproject.toml without `make lock` is noticed here and not in an image build."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=]", line, maxsplit=1)[0] for line in wanted} - {project["name"]}
    locked = {name for lock in [*LOCKS, *NEIGHBOURS] for name, _ in pins(lock)}
    assert names - locked == set()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_image_runs_as_an_unprivileged_number(dockerfile: Path) -> None:
    """Pod Security `restricted` checks runAsNonRoot against the image's user, which must therefore be a number."""
    instructions = dockerfile.read_text()
    assert re.findall(r"^USER (.*)$", instructions, flags=re.MULTILINE) == ["65532:65532"]
    assert "--require-hashes" in instructions


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_whatever_an_image_installs_is_held_to_a_hash(dockerfile: Path) -> None:
    """Also where torch comes from another index, and nothing brings what the locks do not name."""
    installs = re.sub(r"\\\n", " ", dockerfile.read_text()).split("pip install")[1:]
    assert installs
    for install in installs:
        options = re.split(r"&&|;|\n", install)[0].split()
        assert {"--require-hashes", "--no-deps"} <= set(options)


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    """`operator` is a module of Python's own; our folder of that name is no package and holds exactly one."""
    names = {path.name for path in (REPOSITORY / "operator").iterdir()} - {"__pycache__"}
    assert {name for name in names if not name.endswith(".egg-info")} == {"Dockerfile", "retune"}

"""Building images with buildah in a store of our own, and what a build may borrow of this machine.

Certificates, pip settings and package sources of the machine are mounted into the build, never copied into a layer
or the image's environment.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from tools.localcluster.settings import Settings
from tools.localcluster.shell import run, run_logged

CERTIFICATES = ("/etc/ssl/certs", "/usr/local/share/ca-certificates")
PIP_OPTIONS = {
    "cert",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "no-index",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
}

_LIVING = "inside-"
"""Begin of the names of containers that belong to a process, whose number follows."""


def store(settings: Settings) -> Path:
    """Where images, layers and build caches lie; survives `down --purge`."""
    return settings.cache / "buildah"


def command(settings: Settings) -> list[str]:
    """Buildah with our own store."""
    home = store(settings)
    places = ["--root", f"{home}/storage", "--runroot", f"{home}/run"]
    return ["/usr/bin/buildah", *places, "--storage-driver", "overlay"]


def environment(settings: Settings) -> dict[str, str]:
    """The caller's environment with temporary files (large layers) and cache mounts kept in our store."""
    temporary = store(settings) / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "TMPDIR": str(temporary)}


def call(settings: Settings, *words: str | Path) -> str:
    """A short buildah command; returns its output."""
    return run([*command(settings), *words], env=environment(settings))


def image_id(settings: Settings, tag: str) -> str | None:
    """The id of a tagged image, or None."""
    words = ("images", "--quiet", "--no-trunc", "--filter", f"reference={tag}")
    output = call(settings, *words).split()
    return output[0] if output else None


def build(
    settings: Settings,
    *,
    dockerfile: Path,
    context: Path,
    tag: str,
    arguments: Mapping[str, str],
    labels: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Build one image and return its id; layers of a former build that no image needs any more are removed."""
    former = image_id(settings, tag)
    _remove_abandoned(settings)
    with borrowed() as mounts:
        words: list[str | Path] = ["bud", "--isolation", "chroot", "--network", "host", "--layers", "--pull=never"]
        words += [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
        words += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        words += [f"--label={key}={value}" for key, value in labels.items()]
        words += ["--file", dockerfile, "--tag", tag, context]
        log = settings.cache / "logs" / f"image-{re.sub(r'[^a-z0-9]+', '-', tag)}.log"
        run_logged([*command(settings), *words], log=log, env=environment(settings))
    built = image_id(settings, tag)
    if former and former != built:
        run([*command(settings), "rmi", former], env=environment(settings), check=False)
    return str(built)


def container_name(image: str) -> str:
    """Return the name of a container of this process, which a build beside it leaves alone."""
    return f"{_LIVING}{os.getpid()}-{image}"


def _remove_abandoned(settings: Settings) -> None:
    """Remove what interrupted builds and commands left; what a living process runs in stays."""
    for each in json.loads(call(settings, "containers", "--json") or "null") or ():
        name = str(each["containername"])
        owner = name.removeprefix(_LIVING).partition("-")[0]
        if not (name.startswith(_LIVING) and Path(f"/proc/{owner}").exists()):
            call(settings, "rm", each["id"])


def copy_out(settings: Settings, tag: str, layout: Path) -> None:
    """Copy an image into an OCI layout without compressing it; skopeo, since `buildah push` always compresses there."""
    home = store(settings)
    source = f"containers-storage:[overlay@{home}/storage+{home}/run]{tag}"
    words = [
        "/usr/bin/skopeo",
        "copy",
        "--quiet",
        "--dest-oci-accept-uncompressed-layers",
        source,
        f"oci:{layout}:{tag}",
    ]
    run(words, env=environment(settings))


@contextmanager
def borrowed() -> Iterator[dict[str, str]]:
    """Mounts of the machine's certificates, pip settings and Debian sources for one build; files end with it."""
    mounts = {place: place for place in CERTIFICATES if Path(place).is_dir()}
    with tempfile.TemporaryDirectory(prefix="retune-build-") as folder:
        for name, text, target in (
            ("pip.conf", pip_settings(), "/etc/pip.conf"),
            ("sources.list", debian_sources(), "/etc/apt/sources.list"),
        ):
            if text:
                (Path(folder) / name).write_text(text)
                mounts[f"{folder}/{name}"] = target
        yield mounts


def pip_settings() -> str:
    """This machine's pip settings, from its files and environment, as far as they say where packages are."""
    names = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf", os.environ.get("PIP_CONFIG_FILE", ""))
    parser = configparser.RawConfigParser()
    parser.read([Path(name).expanduser() for name in names if name])
    found: dict[str, str] = {}
    for section in ("global", "install"):
        found.update(parser.items(section) if parser.has_section(section) else ())
    for key, value in os.environ.items():
        if key.startswith("PIP_"):
            found[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    kept = {key: value for key, value in found.items() if key in PIP_OPTIONS and usable(key, value)}
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(kept.items())) if kept else ""


def usable(key: str, value: str) -> bool:
    """Whether a setting means something in a build: folders of this machine are not there."""
    return bool(value) and (key != "find-links" or "://" in value)


def debian_targets() -> list[tuple[str, str]]:
    """Address and release of this machine's own Debian sources."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    lines = {line for line in run(words, check=False).splitlines() if re.search(r" bookworm(-\w+)?$", line)}
    return sorted((address, release) for address, _, release in (line.partition(" ") for line in lines))


def debian_sources() -> str:
    """Package sources for `apt-get` in a build."""
    return "".join(f"deb {address} {release} main\n" for address, release in debian_targets() if "debian" in address)

"""The base image: a minimal Debian with Python by debootstrap, where `python:3.11-slim-bookworm` cannot be pulled."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tools.localcluster import buildah
from tools.localcluster.settings import BASE_IMAGE, PACKAGE, Settings
from tools.localcluster.shell import run, run_logged, say

RELEASE = "bookworm"
INCLUDED = "ca-certificates,python3,python3-venv"
DOCKERFILE = PACKAGE / "dockerfiles" / "base.Dockerfile"
DROPPED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log")
# Empty files and folders that builds mount over, so that no build leaves new ones behind.
EMPTY_FILES = ("etc/apt/sources.list", "etc/pip.conf")
EMPTY_FOLDERS = ("root/.cache/pip", "var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log/apt")


def key() -> str:
    """Hash of all that decides what the base holds."""
    parts = (RELEASE, INCLUDED, DROPPED, EMPTY_FILES, EMPTY_FOLDERS, DOCKERFILE.read_text())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def build(settings: Settings) -> str:
    """Build the base image and return its id."""
    say("making the Debian base image with debootstrap: about 1 min")
    work = buildah.store(settings) / "base"
    shutil.rmtree(work, ignore_errors=True)
    rootfs, context = work / "rootfs", work / "context"
    context.mkdir(parents=True)
    mirror = next((address for address, release in buildah.debian_targets() if release == RELEASE), None)
    words = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", RELEASE, str(rootfs)]
    run_logged([*words, *([mirror] if mirror else [])], log=settings.cache / "logs" / "debootstrap.log")
    tidy(rootfs)
    run(["tar", "--create", "--numeric-owner", "--file", context / "rootfs.tar", "--directory", rootfs, "."])
    shutil.rmtree(rootfs)
    built = buildah.build(settings, dockerfile=DOCKERFILE, context=context, tag=BASE_IMAGE, arguments={})
    shutil.rmtree(work)
    return built


def tidy(rootfs: Path) -> None:
    """Drop caches and manuals, forget the mirror, and add what the Python image has and Debian has not."""
    for name in DROPPED:
        shutil.rmtree(rootfs / name, ignore_errors=True)
        (rootfs / name).mkdir(parents=True)
    for name in EMPTY_FOLDERS:
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    for name in EMPTY_FILES:
        (rootfs / name).write_text("")
    (rootfs / "usr/local/bin/python").symlink_to("/usr/bin/python3")

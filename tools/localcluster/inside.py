"""Run a command inside an image of the project, with the working tree mounted over what the image carries of it.

So what needs the image's libraries is tested with exactly these, and the libraries are installed once. Changes
nothing: the tree is mounted read-only, and the container is gone afterwards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tools.localcluster import base, buildah, images, packages
from tools.localcluster.settings import BASE_IMAGE, REPOSITORY, Settings

SHARED = "downloads"
"""Folder of the cache that a command inside may write to, so that what it downloads or makes is there the next time."""


def run(settings: Settings, name: str, words: Sequence[str]) -> int:
    """Run a command in the repository's root inside image `name`, built if need be; returns its exit code.

    It finds its cache in RETUNE_CACHE, as out here.
    """
    packages.ensure(settings)
    image = next(image for image in images.IMAGES if image.name == name)
    images.build(settings, image, images.ensure_built(settings, BASE_IMAGE, base.key(), lambda: base.build(settings)))
    named = buildah.container_name(name)
    container = buildah.call(settings, "from", "--pull=never", "--name", named, image.tag).strip()
    try:
        done = subprocess.run(
            [*_command(settings), container, "--", *words], env=buildah.environment(settings), check=False
        )
    finally:
        buildah.call(settings, "rm", container)
    return done.returncode


def _command(settings: Settings) -> list[str]:
    shared = settings.cache / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    words = [*buildah.command(settings), "run", "--isolation", "chroot", "--network", "host", "--user", "0"]
    words += [f"--env=PYTHONPATH={REPOSITORY}/operator:{REPOSITORY}", f"--env=RETUNE_CACHE={shared}"]
    words += [f"--volume={REPOSITORY}:{REPOSITORY}:ro", f"--volume={shared}:{shared}", f"--workingdir={REPOSITORY}"]
    return words

"""How an image was built, as an in-toto statement with SLSA provenance: from which sources, base and arguments.

It is what the builder says of itself. It is not signed, so it proves nothing to whoever does not trust where it lies;
signing it is for whoever publishes the image, with a key of theirs.
"""

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tools.bom.bill import Json, locks_of

_BUILD_TYPE = "https://retune.dev/build/dockerfile/v1"
_BUILDER = "https://retune.dev/build/localcluster"


def provenance(
    tag: str, image_id: str, *, dockerfile: Path, root: Path, base_id: str, arguments: Mapping[str, str]
) -> Json:
    """Return the statement about one build.

    Args:
        tag: Name of the image.
        image_id: Digest of its configuration, in hexadecimal digits: what it is known by before it is pushed.
        dockerfile: What it was built from.
        root: The repository, which is the context.
        base_id: The same digest of the image that it stands on.
        arguments: Arguments of the build.
    """
    place = dockerfile.relative_to(root).as_posix()
    files = (place, *locks_of(dockerfile.read_text(encoding="utf-8")))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": tag, "digest": {"sha256": image_id}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"dockerfile": place, "arguments": dict(arguments)},
                "resolvedDependencies": [
                    {"name": "base image", "digest": {"sha256": base_id}},
                    *({"name": file, "digest": {"sha256": _digest(root / file)}} for file in files),
                    *_sources(root),
                ],
            },
            "runDetails": {"builder": {"id": _BUILDER}},
        },
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sources(root: Path) -> list[Json]:
    """Return the commit of the sources, and whether files differ from it; nothing outside of a repository."""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return []
    changed = "true" if _git(root, "status", "--porcelain") else "false"
    return [{"name": "sources", "digest": {"gitCommit": commit}, "annotations": {"changed": changed}}]


def _git(root: Path, *words: str) -> str:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""

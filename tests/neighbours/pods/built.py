"""The images of the tests: retune-runtime by the Dockerfile of examples/servers/triton, and a real Triton beside it.

Where no registry is reached, the base of both is the local cluster's own Debian in the place of Python's.
"""

import json
import shutil
from pathlib import Path

from tests.neighbours import triton
from tools.localcluster import base, buildah, images, sources
from tools.localcluster.settings import BASE_IMAGE, REGISTRY, REPOSITORY, Settings, load
from tools.localcluster.shell import say

RUNTIME = images.Image("retune-runtime", "examples/servers/triton/Dockerfile", "1 min")
SERVER, OLD_SERVER = f"{REGISTRY}/triton:dev", f"{REGISTRY}/triton-too-old:dev"
"""The server, and one whose engine is too old for every finalist of a judge."""
_FINALISTS_TOO_OLD = {f"candidate-{number}": "too old" for number in range(1, 9)}
_ENTRY = 'QUIRKS="$(cat /opt/quirks.json)" exec "$@"\n'
_DOCKERFILE = Path(__file__).with_name("triton.Dockerfile")
_LOCK = REPOSITORY / "requirements" / "neighbours" / "triton.txt"
_SITE = "/opt/venv/lib/python3.11/site-packages"


def loaded(folder: Path) -> None:
    """Build what has changed, and load it into the local cluster.

    Args:
        folder: An empty folder, where the server's image is built from.
    """
    settings = load()
    base_id = images.ensure_built(settings, BASE_IMAGE, base.key(), lambda: base.build(settings))
    images.load(settings, RUNTIME.tag, images.build(settings, RUNTIME, base_id))
    shutil.copy(_LOCK, folder / "requirements.txt")
    (folder / "model.py").write_text(triton.backend(_SITE), encoding="utf-8")
    (folder / "entrypoint.sh").write_text(_ENTRY, encoding="utf-8")
    for tag, quirks in ((SERVER, {}), (OLD_SERVER, _FINALISTS_TOO_OLD)):
        (folder / "quirks.json").write_text(json.dumps(quirks), encoding="utf-8")
        images.load(settings, tag, _server(settings, tag, folder, base_id))


def _server(settings: Settings, tag: str, folder: Path, base_id: str) -> str:
    arguments = {"BASE_IMAGE": BASE_IMAGE}

    def build() -> str:
        say(f"building {tag}: 2 min the first time")
        return buildah.build(settings, dockerfile=_DOCKERFILE, context=folder, tag=tag, arguments=arguments)

    key = sources.fingerprint(_DOCKERFILE, folder, extra=(base_id, repr(arguments)))
    return images.ensure_built(settings, tag, key, build)

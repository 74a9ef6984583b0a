"""`make kind-up` where there is neither Docker nor kind: its recipe runs on stand-ins that note what they are asked.

What only a machine with Docker can show is whether the images build. That the recipe is sound, that every file it names
is there, and that kind would take its configuration, is shown here.
"""

import ipaddress
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.digits.kube import DIGITS
from examples.kube import IMAGES

Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[3]
CONFIG: Json = yaml.safe_load((REPOSITORY / "kind-config.yaml").read_text(encoding="utf-8"))
COPY = re.compile(r"^COPY (?P<words>(?:[^\\\n]|\\\n)+)$", re.MULTILINE)
CLUSTERS = {"none": "", "ours": "retune\n", "another": "retune-2\n"}
"""What `kind get clusters` says."""

# Fields of kind's v1alpha4, which refuses every other: pkg/apis/config/v1alpha4/types.go of kubernetes-sigs/kind.
_PATCHES = ("kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902")
_CONTAINERD = ("containerdConfigPatches", "containerdConfigPatchesJSON6902")
CLUSTER_FIELDS = {"kind", "apiVersion", "name", "nodes", "networking", "featureGates", "runtimeConfig"}
CLUSTER_FIELDS |= {*_PATCHES, *_CONTAINERD}
NODE_FIELDS = {"role", "image", "labels", "extraMounts", "extraPortMappings", *_PATCHES}
NETWORKING_FIELDS = {"ipFamily", "apiServerPort", "apiServerAddress", "podSubnet", "serviceSubnet", "disableDefaultCNI"}
NETWORKING_FIELDS |= {"kubeProxyMode", "dnsSearch"}


class StandIns:
    """A folder of programs on PATH that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "calls"
        self.log.touch()

    def add(self, name: str, *, says: str = "", exits: int = 0) -> None:
        """Make a program that prints something and ends with an exit code."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\necho {name} \"$@\" >> '{self.log}'\nprintf '{says}'\nexit {exits}\n")
        path.chmod(0o755)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run make in the repository with these programs found first, and no others of their names."""
        environment = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": os.environ.get("LANG", "C"),
        }
        command = ["make", "--no-print-directory", *words]
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[str]:
        """What was called, without the probes."""
        probes = {"docker info", "kind version", "kind get clusters"}
        return [call for call in self.log.read_text().splitlines() if call not in probes]


@pytest.fixture
def programs(tmp_path: Path) -> StandIns:
    """Stand-ins for docker and kind, with no cluster yet."""
    found = StandIns(tmp_path)
    found.add("docker")
    found.add("kind")
    return found


def dockerfiles(calls: list[str]) -> dict[str, str]:
    """Return the Dockerfile that each image is built from, by tag."""
    words = [call.split() for call in calls if call.startswith("docker build")]
    return {each[each.index("--tag") + 1]: each[each.index("--file") + 1] for each in words}


def test_a_cluster_is_created_and_every_image_is_built_and_loaded(programs: StandIns) -> None:
    """In this order, from the repository's root, and with the images that the demo asks for by name."""
    done = programs.make("kind-up")
    assert done.returncode == 0, done.stderr
    create, *rest = programs.calls
    assert create == "kind create cluster --name retune --config kind-config.yaml"
    builds, loads = rest[::2], rest[1::2]
    tags = list(dockerfiles(rest))
    assert [call.split()[-1] for call in builds] == ["."] * len(tags)
    assert loads == [f"kind load docker-image --name retune {tag}" for tag in tags]
    text = "".join(path.read_text(encoding="utf-8") for path in (DIGITS.folder / "manifests").glob("*.yaml"))
    named = set(re.findall(rf"{IMAGES}/[a-z-]+:dev", text))
    assert set(tags) == named | {f"{IMAGES}/{name}:dev" for name in ("operator", "optimizer", "monitor")}


def test_what_the_images_are_built_from_is_there(programs: StandIns) -> None:
    """Every Dockerfile, and every file and folder that it copies."""
    programs.make("kind-up")
    files = dockerfiles(programs.calls).values()
    assert len(files) == 4
    for name in files:
        copies = COPY.findall((REPOSITORY / name).read_text(encoding="utf-8"))
        sources = [source for words in copies for source in words.replace("\\\n", " ").split()[:-1]]
        assert sources
        assert [source for source in sources if not (REPOSITORY / source).exists()] == [], name


@pytest.mark.parametrize("there", CLUSTERS)
def test_a_cluster_that_is_there_is_kept(programs: StandIns, there: str) -> None:
    """Called again, the images are built and loaded anew; another cluster's name that only begins alike is not ours."""
    programs.add("kind", says=CLUSTERS[there])
    programs.make("kind-up")
    created = [call for call in programs.calls if call.startswith("kind create")]
    assert len(created) == (0 if there == "ours" else 1)
    assert len(dockerfiles(programs.calls)) == 4


@pytest.mark.parametrize("missing", ["docker", "kind"])
def test_what_is_missing_is_told_before_anything_is_done(programs: StandIns, missing: str) -> None:
    """With a sentence that says what to do without it."""
    programs.add(missing, exits=1)
    done = programs.make("kind-up")
    assert done.returncode != 0
    assert missing in done.stderr.lower()
    assert "make cluster-up images" in done.stderr
    assert programs.calls == []


def test_a_build_that_fails_stops_the_rest(programs: StandIns) -> None:
    """Nothing stale is loaded."""
    programs.add("docker", exits=0)
    (programs.folder / "docker").write_text(f'#!/bin/sh\necho docker "$@" >> \'{programs.log}\'\n[ "$1" = info ]\n')
    assert programs.make("kind-up").returncode != 0
    assert [call.split()[1] for call in programs.calls] == ["create", "build"]


def test_the_cluster_is_deleted_by_its_name(programs: StandIns) -> None:
    """And no other."""
    assert programs.make("kind-down", "KIND_CLUSTER=mine").returncode == 0
    assert programs.calls == ["kind delete cluster --name mine"]


def test_kind_knows_every_field_of_its_configuration() -> None:
    """It reads the file strictly: a misspelt field is an error."""
    assert (CONFIG["kind"], CONFIG["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert CONFIG.keys() <= CLUSTER_FIELDS
    assert CONFIG["networking"].keys() <= NETWORKING_FIELDS
    for node in CONFIG["nodes"]:
        assert node.keys() <= NODE_FIELDS
        assert node["role"] in {"control-plane", "worker"}
    assert [node["role"] for node in CONFIG["nodes"]].count("control-plane") == 1


def test_the_subnets_are_networks_that_do_not_overlap() -> None:
    """Pods and Services have addresses of their own."""
    pods, services = (ipaddress.ip_network(CONFIG["networking"][name]) for name in ("podSubnet", "serviceSubnet"))
    assert not pods.overlaps(services)


def test_kind_runs_the_kubernetes_that_the_local_cluster_is_built_from() -> None:
    """Of the same minor version, so that what is tested here is what runs there."""
    (modules,) = REPOSITORY.glob("*/localcluster/gomods/kubernetes/go.mod")
    built = re.search(r"k8s\.io/kubernetes v(\d+\.\d+)", modules.read_text(encoding="utf-8"))
    assert built is not None
    for node in CONFIG["nodes"]:
        image = re.fullmatch(r"kindest/node:v(\d+\.\d+)\.\d+", node["image"])
        assert image is not None
        assert image[1] == built[1]

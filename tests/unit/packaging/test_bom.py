"""Bills of materials and provenance of images: complete, the same for the same sources, free of this machine."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from retune import __version__
from tests.unit.packaging.test_locks import pins
from tools.bom.__main__ import main
from tools.bom.bill import bill, digest_of, encoded, locks_of, pins_of
from tools.bom.provenance import provenance
from tools.localcluster.images import IMAGES, Image, labels_of

Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[3]
LOCK = """\
# a comment
alpha==1.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
beta==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:{a}
gamma==3.0 ; platform_machine == 'x86_64' and sys_platform == 'linux' \\
    --hash=sha256:{b}
""".format(a="a" * 64, b="b" * 64)
every_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


def document_of(image: Image) -> Json:
    """Return an image's bill."""
    return bill(image.name, REPOSITORY / image.dockerfile, root=REPOSITORY, machine="x86_64")


def test_a_lock_is_read_for_the_image_that_it_is_installed_into() -> None:
    """With every hash that may be installed, and without what is for other systems and processors."""
    found = list(pins_of(LOCK, machine="x86_64"))
    assert [(pin.purl, len(pin.hashes)) for pin in found] == [("pkg:pypi/alpha@1.0", 2), ("pkg:pypi/gamma@3.0", 1)]
    assert [pin.name for pin in pins_of(LOCK, machine="aarch64")] == ["alpha"]


@every_image
def test_a_bill_names_every_distribution_of_the_locks_with_its_hashes(image: Image) -> None:
    """Whatever a Dockerfile installs, and its base; nothing twice, and everything hangs on the image."""
    instructions = (REPOSITORY / image.dockerfile).read_text()
    locked = {
        f"pkg:pypi/{name}@{version}": marker
        for lock in locks_of(instructions)
        for (name, marker), version in pins(REPOSITORY / lock).items()
    }
    document = document_of(image)
    base, *libraries = document["components"]
    named = {part["purl"] for part in libraries}
    assert set(re.findall(r"requirements/[a-z]+\.txt", instructions)) == set(locks_of(instructions))
    assert len(named) == len(libraries) > 20
    assert named <= locked.keys()
    assert all(locked[purl] for purl in locked.keys() - named), "only what a marker is for other machines is left out"
    assert all(part["properties"] for part in libraries)
    assert (base["type"], base["name"]) == ("container", "python")
    assert f"@sha256:{base['hashes'][0]['content']}\n" in instructions
    (edges,) = document["dependencies"]
    assert edges["dependsOn"] == [part["bom-ref"] for part in document["components"]]
    assert document["metadata"]["component"]["version"] == __version__


@every_image
def test_the_same_sources_give_the_same_bill(image: Image) -> None:
    """So its digest can be a label of the image, and says nothing of when and where it was made."""
    first, second = document_of(image), document_of(image)
    assert encoded(first) == encoded(second)
    assert labels_of(image, first)["dev.retune.bill-of-materials"] == f"sha256:{digest_of(first)}"
    text = encoded(first).decode()
    assert socket.gethostname() not in text
    assert str(REPOSITORY) not in text


def test_provenance_names_what_went_into_an_image() -> None:
    """Its own digest, the base, the Dockerfile and its locks by content, and the arguments of the build."""
    image = IMAGES[0]
    statement = provenance(
        image.tag,
        "1" * 64,
        dockerfile=REPOSITORY / image.dockerfile,
        root=REPOSITORY,
        base_id="2" * 64,
        arguments={"BASE_IMAGE": "base"},
    )
    assert statement["subject"] == [{"name": image.tag, "digest": {"sha256": "1" * 64}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"dockerfile": image.dockerfile, "arguments": {"BASE_IMAGE": "base"}}
    digests = {part["name"]: part["digest"] for part in definition["resolvedDependencies"]}
    assert digests["base image"] == {"sha256": "2" * 64}
    assert {image.dockerfile, "requirements/operator.txt"} <= digests.keys()
    assert str(REPOSITORY) not in json.dumps(statement)


def test_bills_of_all_images_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file an image, and a line that says where."""
    assert main(["--folder", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{image.name}.cdx.json" for image in IMAGES}
    assert capsys.readouterr().out.count(" components") == len(IMAGES)

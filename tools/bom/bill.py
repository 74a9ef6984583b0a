"""The bill of materials of an image, in CycloneDX, read off what its Dockerfile installs: locks, base image, our code.

The locks are complete and hashed, and an image installs from nothing else, so they are what it holds. The same sources
give the same bytes: no moment and no random number is in a bill.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker

from retune import __version__

Json = dict[str, Any]
SPEC_VERSION = "1.6"
_PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]*?))? \\$")
_HASH = re.compile(r"^ {4}--hash=(?P<hash>sha256:[0-9a-f]{64})")
_INSTALLED = re.compile(r"-r /app/(?P<lock>requirements/[a-z]+\.txt)")
_BASE = re.compile(r"^ARG BASE_IMAGE=\S+/(?P<name>\S+):(?P<tag>\S+)@sha256:(?P<digest>[0-9a-f]{64})$", re.MULTILINE)
_LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Pin:
    """A distribution as a lock names it."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """Digests of the files that may be installed for it, one for each platform and form."""

    @property
    def purl(self) -> str:
        """Its package URL, by which scanners know it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def locks_of(dockerfile: str) -> tuple[str, ...]:
    """Return the locks that a Dockerfile installs from, by their paths from the repository's root, in order."""
    return tuple(dict.fromkeys(match["lock"] for match in _INSTALLED.finditer(dockerfile)))


def pins_of(lock: str, *, machine: str) -> Iterator[Pin]:
    """Yield what a lock installs into an image of Python 3.11 on Linux.

    Args:
        lock: Text of the lock.
        machine: Processor, as `platform.machine()` calls it.
    """
    pin, applies, hashes = None, False, list[str]()
    for line in [*lock.splitlines(), "end"]:
        if found := _HASH.match(line):
            hashes.append(found["hash"])
            continue
        if pin is not None and applies:
            yield Pin(pin["name"], pin["version"], tuple(hashes))
        pin, hashes = _PIN.match(line), []
        applies = pin is not None and _applies(pin["marker"], machine)


def _applies(marker: str | None, machine: str) -> bool:
    environment = {
        "python_version": "3.11",
        "python_full_version": "3.11.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": machine,
    }
    return marker is None or Marker(marker).evaluate(environment)


def bill(name: str, dockerfile: Path, *, root: Path, machine: str) -> Json:
    """Return the bill of an image.

    Args:
        name: Name of the image, such as `operator`.
        dockerfile: Its Dockerfile.
        root: The repository.
        machine: Processor that it is built for.
    """
    instructions = dockerfile.read_text(encoding="utf-8")
    texts = [(root / lock).read_text(encoding="utf-8") for lock in locks_of(instructions)]
    pins = {pin.purl: pin for text in texts for pin in pins_of(text, machine=machine)}
    parts = [_base(instructions), *(_library(pins[purl]) for purl in sorted(pins))]
    image = {
        "type": "container",
        "bom-ref": f"retune/{name}@{__version__}",
        "name": f"retune/{name}",
        "version": __version__,
        "licenses": [{"license": {"id": _LICENSE}}],
    }
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": image},
        "components": parts,
        "dependencies": [{"ref": image["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    return document | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest_of(document))}"}


def _base(instructions: str) -> Json:
    base = _BASE.search(instructions)
    if base is None:
        raise ValueError("the Dockerfile has no line ARG BASE_IMAGE=REGISTRY/NAME:TAG@sha256:DIGEST")
    return {
        "type": "container",
        "bom-ref": f"base/{base['name']}@{base['tag']}",
        "name": base["name"],
        "version": base["tag"],
        "purl": f"pkg:docker/{base['name']}@sha256:{base['digest']}",
        "hashes": [{"alg": "SHA-256", "content": base["digest"]}],
    }


def _library(pin: Pin) -> Json:
    locked = [{"name": "retune:locked-file", "value": value} for value in pin.hashes]
    return {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        "properties": locked,
    }


def encoded(document: Json) -> bytes:
    """Return a document as JSON, the same for the same content."""
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def digest_of(document: Json) -> str:
    """Return the SHA-256 of a document, in hexadecimal digits."""
    return hashlib.sha256(encoded(document)).hexdigest()

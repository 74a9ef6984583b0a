"""The project's images: built from their Dockerfiles and loaded into the cluster, as little work as the change asks.

A layer that the cluster has already is neither exported nor copied again; that is what makes an image with gigabytes
of libraries bearable. Archives are streamed, never stored.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retune import __version__
from tools.bom.bill import bill, digest_of, encoded
from tools.bom.provenance import provenance
from tools.localcluster import base, buildah, sources
from tools.localcluster.settings import BASE_IMAGE, PACKAGE, PAUSE_IMAGE, REGISTRY, REPOSITORY, Settings
from tools.localcluster.shell import ClusterError, locked, run, say, tail, wait_for, write_if_changed

BUSYBOX = Path("/bin/busybox")
DOCUMENTS = REPOSITORY / "out" / "images"
"""Where bills of materials and provenance of the images are written."""
NAME_ANNOTATION = "io.containerd.image.name"


@dataclass(frozen=True)
class Image:
    """An image of the project. dockerfile: relative to the repository, which is the build context."""

    name: str
    dockerfile: str
    duration: str

    @property
    def tag(self) -> str:
        """Its full name in the cluster."""
        return f"{REGISTRY}/{self.name}:dev"


IMAGES = (
    Image("operator", "operator/Dockerfile", "1 min"),
    Image("optimizer", "optimizer_jobs/Dockerfile", "6 min"),
    Image("monitor", "optimizer_jobs/monitor.Dockerfile", "3 min"),
    Image("digits-server", "examples/digits/server/Dockerfile", "2 min"),
)
NAMES = tuple(image.name for image in IMAGES)


def ensure(settings: Settings, names: Sequence[str] = NAMES) -> list[str]:
    """Build and load these images; returns their tags. Whatever is up to date is left alone."""
    chosen = [image for image in IMAGES if image.name in names]
    base_id = ensure_built(settings, BASE_IMAGE, base.key(), lambda: base.build(settings))
    for image in chosen:
        load(settings, image.tag, build(settings, image, base_id))
    return [image.tag for image in chosen]


def ensure_pause(settings: Settings) -> None:
    """Build and load the image of the pause container."""
    dockerfile = PACKAGE / "dockerfiles" / "busybox.Dockerfile"

    def build_it() -> str:
        say("building the pause image: a few seconds")
        return buildah.build(settings, dockerfile=dockerfile, context=BUSYBOX.parent, tag=PAUSE_IMAGE, arguments={})

    key = sources.fingerprint(dockerfile, BUSYBOX.parent, extra=())
    load(settings, PAUSE_IMAGE, ensure_built(settings, PAUSE_IMAGE, key, build_it))


def build(settings: Settings, image: Image, base_id: str) -> str:
    """Build one image of the project unless its inputs are those of the last build; returns its id."""
    dockerfile = REPOSITORY / image.dockerfile
    if not dockerfile.exists():
        raise ClusterError(f"image {image.name} has no Dockerfile at {dockerfile}")
    arguments = {"BASE_IMAGE": BASE_IMAGE}
    document = bill(image.name, dockerfile, root=REPOSITORY, machine=platform.machine())
    labels = labels_of(image, document)
    key = sources.fingerprint(dockerfile, REPOSITORY, extra=(base_id, repr(arguments), repr(labels)))

    def build_it() -> str:
        say(f"building {image.tag}: up to {image.duration} when its packages changed, seconds after a code edit")
        return buildah.build(
            settings, dockerfile=dockerfile, context=REPOSITORY, tag=image.tag, arguments=arguments, labels=labels
        )

    built = ensure_built(settings, image.tag, key, build_it)
    statement = provenance(
        image.tag, built, dockerfile=dockerfile, root=REPOSITORY, base_id=base_id, arguments=arguments
    )
    DOCUMENTS.mkdir(parents=True, exist_ok=True)
    (DOCUMENTS / f"{image.name}.cdx.json").write_bytes(encoded(document))
    (DOCUMENTS / f"{image.name}.provenance.json").write_bytes(encoded(statement))
    return built


def of_program(settings: Settings, tag: str, name: str, folder: Path, *, base_id: str = "") -> str:
    """Build the image of another project's program unless its inputs are those of the last build; returns its id.

    Args:
        settings: The cluster's settings.
        tag: Full name of the image.
        name: Name of its Dockerfile, and how it is called in messages.
        folder: Folder with the program, which is the build context.
        base_id: Id of the base image, where it is built on that; else it is the program alone.
    """
    dockerfile = PACKAGE / "dockerfiles" / f"{name}.Dockerfile"
    arguments = {"BASE_IMAGE": BASE_IMAGE} if base_id else {}

    def build_it() -> str:
        say(f"building {tag}: a few seconds")
        return buildah.build(settings, dockerfile=dockerfile, context=folder, tag=tag, arguments=arguments)

    return ensure_built(settings, tag, sources.fingerprint(dockerfile, folder, extra=(base_id,)), build_it)


def labels_of(image: Image, document: dict[str, Any]) -> dict[str, str]:
    """Return the labels of an image: what it is, and by its digest the bill of materials that belongs to it."""
    return {
        "org.opencontainers.image.title": f"Retune {image.name}",
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "dev.retune.bill-of-materials": f"sha256:{digest_of(document)}",
    }


def ensure_built(settings: Settings, tag: str, key: str, build_it: Callable[[], str]) -> str:
    """The id of an image whose inputs have this key: as noted when it was built, else by building it.

    One build at a time; who needs no build waits for none.
    """
    note = buildah.store(settings) / "built" / file_name(tag)
    if known := built_before(settings, tag, key, note):
        return known
    with locked(buildah.store(settings) / "lock"):
        if known := built_before(settings, tag, key, note):
            return known
        built = build_it()
        write_note(note, {"key": key, "id": built})
        return built


def built_before(settings: Settings, tag: str, key: str, note: Path) -> str | None:
    """The id of an image if a note says that it was built from these inputs and it is still there."""
    known = read_note(note)
    if known.get("key") == key and buildah.image_id(settings, tag) == known.get("id"):
        return known["id"]
    return None


def file_name(tag: str) -> str:
    """A tag as the name of a file."""
    return tag.replace("/", "_").replace(":", "_") + ".json"


def read_note(path: Path) -> dict[str, str]:
    """A note of a former run; empty when there is none."""
    try:
        note: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note


def write_note(path: Path, note: dict[str, str]) -> None:
    """Remember for the next run."""
    write_if_changed(path, json.dumps(note))


def load(settings: Settings, tag: str, built: str) -> None:
    """Make the cluster have this build of an image, unless it has it."""
    note = settings.state / "images" / file_name(tag)
    if loaded_before(settings, tag, built, note):
        return
    if not settings.containerd_socket.exists():
        raise ClusterError("the cluster does not run, so images cannot be loaded; start it with `up`")
    with locked(settings.cache / "locks" / f"{settings.ident}-images.lock"):
        if loaded_before(settings, tag, built, note):
            return
        started = time.monotonic()
        digest = copy_in(settings, tag)
        write_note(note, {"id": built, "digest": digest})
        say(f"loaded {tag} in {time.monotonic() - started:.1f} s")


def loaded_before(settings: Settings, tag: str, built: str, note: Path) -> bool:
    """Whether the cluster has what a note says was loaded from this build."""
    known = read_note(note)
    return known.get("id") == built and stored(settings).get(tag) == known.get("digest")


def copy_in(settings: Settings, tag: str) -> str:
    """Copy an image from buildah's store to the cluster's; returns its manifest's digest."""
    layout = buildah.store(settings) / f"export-{settings.ident}"
    shutil.rmtree(layout, ignore_errors=True)
    try:
        digest = export(settings, tag, layout)
        transfer(settings, layout)
    finally:
        shutil.rmtree(layout, ignore_errors=True)
    announce(settings, tag)
    wait_for(lambda: settled(settings, tag), what=f"sight of {tag} by the kubelet", seconds=30)
    drop_orphans(settings)
    return digest


def export(settings: Settings, tag: str, layout: Path) -> str:
    """Write an image as an OCI layout without the layers that the cluster has; returns its manifest's digest.

    Links to the cluster's own layers stand in the layout, so skopeo finds them there and writes only the others.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in content(settings):
        (blobs / blob.name).symlink_to(blob)
    buildah.copy_out(settings, tag, layout)
    index = json.loads((layout / "index.json").read_text())
    entry: dict[str, Any] = index["manifests"][0]
    entry["annotations"] = {NAME_ANNOTATION: tag}
    (layout / "index.json").write_text(json.dumps(index))
    return str(entry["digest"])


def content(settings: Settings) -> list[Path]:
    """Blobs in containerd's store."""
    folder = settings.state / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    return list(folder.iterdir()) if folder.exists() else []


def transfer(settings: Settings, layout: Path) -> None:
    """Stream what the layout really holds into containerd."""
    paths = [layout / "oci-layout", layout / "index.json", *(layout / "blobs" / "sha256").iterdir()]
    process = subprocess.Popen(
        [*ctr(settings), "images", "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        assert process.stderr
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as stream:
                for path in paths:
                    if not path.is_symlink():
                        stream.add(path, arcname=str(path.relative_to(layout)))
            process.stdin.close()
        except BrokenPipeError:
            pass  # ctr ended early; its message below says why
        message = process.stderr.read().decode(errors="replace")
    if process.returncode != 0:
        raise ClusterError(f"containerd did not take the image:\n{tail(message)}")


def ctr(settings: Settings) -> list[str]:
    """Containerd's own client, for the kubelet's namespace."""
    return ["/usr/bin/ctr", "--address", str(settings.containerd_socket), "--namespace", "k8s.io"]


def stored(settings: Settings) -> dict[str, str]:
    """Names and manifest digests of all images the cluster has; empty when it does not run."""
    if not settings.containerd_socket.exists():
        return {}
    rows = run([*ctr(settings), "images", "list"]).splitlines()[1:]
    return {row.split()[0]: row.split()[2] for row in rows}


def announce(settings: Settings, tag: str) -> None:
    """Have the kubelet's side of containerd look at a name anew: it passes over one that it marked as known."""
    run([*ctr(settings), "images", "label", tag, "io.cri-containerd.image="])


def settled(settings: Settings, tag: str) -> bool:
    """Whether the kubelet's side of containerd has noticed the image: then it has a second name, its id."""
    names = stored(settings)
    return any(name.startswith("sha256:") and digest == names.get(tag) for name, digest in names.items())


def drop_orphans(settings: Settings) -> None:
    """Forget images that have only an id left, since their name moved on; containerd then frees their layers."""
    names = stored(settings)
    named = {digest for name, digest in names.items() if not name.startswith("sha256:")}
    for name, digest in names.items():
        if name.startswith("sha256:") and digest not in named:
            run([*ctr(settings), "images", "remove", name])

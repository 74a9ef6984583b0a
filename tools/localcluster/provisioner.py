"""Provisioner of the default StorageClass: a folder of the host for every PersistentVolumeClaim.

A process of its own beside the cluster's daemons. It must never touch a path that it did not derive from a volume
name of its own making, whatever the objects in the cluster say.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tools.localcluster.api import Api, ApiError, Document
from tools.localcluster.settings import NODE_NAME, PROVISIONER

CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
OURS = re.compile(r"pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
REQUESTED = "volume.kubernetes.io/storage-provisioner"
PROVISIONED = "pv.kubernetes.io/provisioned-by"
RESYNC_SECONDS = 30


def wants_folder(claim: Document) -> bool:
    """Whether a claim waits for us."""
    annotations = claim["metadata"].get("annotations", {})
    spec = claim["spec"]
    unbound = not spec.get("volumeName") and claim["status"].get("phase") == "Pending"
    return unbound and annotations.get(REQUESTED) == PROVISIONER and spec.get("volumeMode") != "Block"


def is_released(volume: Document) -> bool:
    """Whether a volume of ours lost its claim and is to go with its data."""
    annotations = volume["metadata"].get("annotations", {})
    ours = annotations.get(PROVISIONED) == PROVISIONER and OURS.fullmatch(volume["metadata"]["name"])
    deletable = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return bool(ours) and deletable and volume["status"].get("phase") in ("Released", "Failed")


def volume_for(claim: Document, folder: Path) -> Document:
    """The PersistentVolume for a claim: a folder, any access mode, bound to this claim only."""
    metadata, spec = claim["metadata"], claim["spec"]
    reference = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")}
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name, "annotations": {PROVISIONED: PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
            "hostPath": {"path": str(folder), "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
        },
    }


def provision(api: Api, root: Path, claim: Document) -> None:
    """Make the folder, open to every user id as shared volumes are, and its volume."""
    folder = root / f"pvc-{claim['metadata']['uid']}"
    if not OURS.fullmatch(folder.name):
        raise ValueError(f"claim with a strange uid: {folder.name}")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    try:
        api.request("POST", VOLUMES, volume_for(claim, folder))
    except ApiError as error:
        if error.status != 409:
            raise
    print(f"provisioned {folder.name} for {claim['metadata']['namespace']}/{claim['metadata']['name']}")


def delete(api: Api, root: Path, volume: Document) -> None:
    """Remove a released volume's folder, then the volume."""
    name = volume["metadata"]["name"]
    folder = root / name
    if folder.exists():
        shutil.rmtree(folder)
    try:
        api.request("DELETE", f"{VOLUMES}/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
    print(f"deleted {name}")


def attempt(action: Callable[[Api, Path, Document], None], api: Api, root: Path, thing: Document) -> None:
    """Do it, or tell why not; the next round tries again."""
    try:
        action(api, root, thing)
    except (ApiError, OSError, ValueError) as error:
        print(f"{action.__name__} of {thing['metadata']['name']} failed: {error}")


def reconcile(api: Api, root: Path) -> None:
    """One round over all claims and volumes."""
    for claim in api.get(CLAIMS)["items"]:
        if wants_folder(claim):
            attempt(provision, api, root, claim)
    for volume in api.get(VOLUMES)["items"]:
        if is_released(volume):
            attempt(delete, api, root, volume)


def wake_on_change(api: Api, path: str, changed: threading.Event) -> None:
    """Set the event at every change of a list, for ever."""
    while True:
        try:
            for _ in api.watch(path, seconds=300):
                changed.set()
        except (ApiError, OSError, ValueError):
            time.sleep(1)


def main(kubeconfig: Path, root: Path) -> None:
    """Reconcile at every change, and now and then without one."""
    api = Api(kubeconfig)
    changed = threading.Event()
    for path in (CLAIMS, VOLUMES):
        threading.Thread(target=wake_on_change, args=(api, path, changed), daemon=True).start()
    while True:
        changed.clear()
        try:
            reconcile(api, root)
        except (ApiError, OSError) as error:
            print(f"the API server cannot be read: {error}")
            changed.wait(1)
            continue
        changed.wait(RESYNC_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

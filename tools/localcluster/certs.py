"""Keys and certificates by the openssl command: two small authorities, one for Kubernetes and one for etcd.

etcd has an authority of its own because a certificate of the cluster's must not open the database behind its back.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tools.localcluster.settings import API_SERVICE_IP, CLUSTER_DOMAIN, NODE_IP, NODE_NAME
from tools.localcluster.shell import run

DAYS = "3650"
REQUEST = "[req]\ndistinguished_name = name\nprompt = no\n[name]\n"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@dataclass(frozen=True)
class Identity:
    """A certificate to issue. names: `DNS:...` or `IP:...` entries it is valid for as a server."""

    file: str
    user: str
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    authority: str = "ca"

    @property
    def subject(self) -> str:
        """The subject as openssl wants it: groups are organizations, the user is the common name."""
        groups = "".join(f"/O={escape(group)}" for group in self.groups)
        return f"{groups}/CN={escape(self.user)}"


def escape(text: str) -> str:
    """Guard the characters that openssl's subject syntax gives a meaning."""
    return text.replace("\\", "\\\\").replace("/", "\\/").replace("+", "\\+")


LOOPBACK = ("DNS:localhost", "IP:127.0.0.1")
KUBERNETES_NAMES = tuple(
    f"DNS:{name}"
    for name in (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
    )
)
ADMIN = Identity("admin", "retune-admin", ("system:masters",))
CONTROL_PLANE = (
    Identity("etcd", "etcd", names=LOOPBACK, authority="etcd-ca"),
    Identity(
        "apiserver",
        "kube-apiserver",
        names=(*KUBERNETES_NAMES, *LOOPBACK, f"IP:{NODE_IP}", f"IP:{API_SERVICE_IP}"),
    ),
    Identity("controller-manager", "system:kube-controller-manager"),
    ADMIN,
)
CLUSTER = (
    *CONTROL_PLANE,
    Identity("apiserver-kubelet", "retune-apiserver-kubelet"),
    Identity("scheduler", "system:kube-scheduler"),
    Identity("kubelet", f"system:node:{NODE_NAME}", ("system:nodes",)),
    Identity("kubelet-server", NODE_NAME, names=(f"IP:{NODE_IP}", f"DNS:{NODE_NAME}")),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("coredns", "retune-coredns"),
    Identity("provisioner", "retune-provisioner"),
    Identity("kube-router", "retune-kube-router"),
)


def ensure(folder: Path, identities: Sequence[Identity]) -> None:
    """Make all keys and certificates unless they are there; the folder appears only when it is complete."""
    stamp = repr(identities)
    done = folder / "identities"
    if done.exists() and done.read_text() == stamp:
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    (partial / "request.cnf").write_text(REQUEST)
    for authority in ("ca", "etcd-ca"):
        make_authority(partial, authority)
    run(["openssl", "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", partial / "service-accounts.key"])
    for identity in identities:
        issue(partial, identity)
    (partial / "identities").write_text(stamp)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def make_authority(folder: Path, name: str) -> None:
    """A self-signed authority, as NAME.crt and NAME.key."""
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
    make(folder, name, f"/CN=retune-{name}", (*extensions, "subjectKeyIdentifier=hash"))


def issue(folder: Path, identity: Identity) -> None:
    """A certificate for client use, and for server use too when it has names, as FILE.crt and FILE.key."""
    usage = "clientAuth,serverAuth" if identity.names else "clientAuth"
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
        f"extendedKeyUsage={usage}",
    ]
    if identity.names:
        extensions.append(f"subjectAltName={','.join(identity.names)}")
    make(folder, identity.file, identity.subject, extensions, authority=identity.authority)


def make(folder: Path, file: str, subject: str, extensions: Sequence[str], *, authority: str | None = None) -> None:
    """One key and one certificate, signed by an authority of the folder or by itself."""
    signer = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key") if authority else ()
    added = [word for extension in extensions for word in ("-addext", extension)]
    name = ("-subj", subject, "-config", "request.cnf", "-days", DAYS)
    files = ("-keyout", f"{file}.key", "-out", f"{file}.crt")
    run(["openssl", "req", "-x509", *CURVE, "-sha256", *name, *added, *signer, *files], cwd=folder)


def kubeconfig(pki: Path, identity: str, server: str, *, namespace: str = "default") -> str:
    """A kubeconfig that holds a certificate of the folder, and so can be moved anywhere."""
    user = {
        "client-certificate-data": encoded(pki / f"{identity}.crt"),
        "client-key-data": encoded(pki / f"{identity}.key"),
    }
    return render_kubeconfig(pki, identity, server, user=user, namespace=namespace)


def render_kubeconfig(pki: Path, name: str, server: str, *, user: dict[str, str], namespace: str = "default") -> str:
    """A kubeconfig for any kind of credential."""
    cluster = {"server": server, "certificate-authority-data": encoded(pki / "ca.crt")}
    context = {"cluster": "retune", "user": name, "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "retune", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "retune", "context": context}],
        "current-context": "retune",
    }
    return yaml.safe_dump(document, sort_keys=False)


def encoded(path: Path) -> str:
    """A file's bytes in base64."""
    return base64.b64encode(path.read_bytes()).decode()

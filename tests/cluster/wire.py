"""A network before the API server that a test can cut: connections stay open, and nothing gets through."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml

_BLOCK = 1 << 16


class Wire:
    """Forwards TCP connections from a port of its own, until it is cut."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through from now on; nobody is told."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, also what was sent meanwhile."""
        self._whole.set()

    def close(self) -> None:
        """End all connections."""
        self.mend()
        for end in (self._server, *self._open):
            with suppress(OSError):
                end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError, ValueError), selectors.DefaultSelector() as ready, near, far:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    self._whole.wait()
                    block = key.fileobj.recv(_BLOCK)  # type: ignore[union-attr]
                    if not block:
                        return
                    key.data.sendall(block)


@contextmanager
def wired(kubeconfig: Path, folder: Path) -> Iterator[tuple[Wire, Path]]:
    """Yield a wire to the API server of a kubeconfig, and a kubeconfig that leads through it."""
    document = yaml.safe_load(kubeconfig.read_text())
    (cluster,) = (entry["cluster"] for entry in document["clusters"])
    address = urlsplit(cluster["server"])
    assert address.hostname
    assert address.port
    wire = Wire((address.hostname, address.port))
    cluster["server"] = f"https://127.0.0.1:{wire.port}"
    through = folder / "wired.kubeconfig"
    through.write_text(yaml.safe_dump(document))
    try:
        yield wire, through
    finally:
        wire.close()

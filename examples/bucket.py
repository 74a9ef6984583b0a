"""The bucket of an example, as this machine reaches it: through a port-forward, by the keys of the example's Secret."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager

from examples.kube import Tools, forwarded

SERVER = "object-store"
"""Name of the S3 server's Service, and of the Secret with its keys."""
PORT = 7070


@contextmanager
def within_reach(tools: Tools) -> Iterator[None]:
    """Have this process's environment lead to the example's bucket, where it keeps everything in one."""
    if tools.store != "s3":
        yield
        return
    (secret,) = tools.kubectl.items("secrets", "--field-selector", f"metadata.name={SERVER}")
    keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    before = {name: os.environ.get(name) for name in keys}
    with forwarded(tools, f"service/{SERVER}", port=PORT) as url:
        try:
            os.environ.update(keys | {"AWS_ENDPOINT_URL": url})
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

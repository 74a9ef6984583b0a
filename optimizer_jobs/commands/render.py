"""The command `render`: it writes a bundle in the layout of a model server of others, for `retune render`."""

import tempfile
from pathlib import Path

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import store_access
from optimizer_jobs.serving.render import render
from optimizer_jobs.stores.published import open_bundle
from retune.contract.machines import RenderResult
from retune.contract.requests import RenderRequest


def run(request: RenderRequest) -> RenderResult:
    """Write the bundle, from a private copy that is verified first: nobody else can change it in between.

    Raises:
        JobError: The bundle is absent or damaged, the server cannot serve it, or the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="render-") as scratch:
        bundle = open_bundle(request.bundle, into=Path(scratch))
        with store_access(request.into):
            made = render(bundle, request.server, name=request.name, into=resolve(request.into).local)
    return RenderResult(server=request.server, digest=bundle.digest, files=made.files, lost=made.lost, tried=made.tried)

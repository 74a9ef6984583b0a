"""The verify Job: it asks every live pod the bundle's golden requests, and checks that the pod serves this bundle.

Told so, it asks pods of a new version what users have asked instead, beside the champion's.
"""

from optimizer_jobs.commands.verify.asking import PATIENCE, Patience
from optimizer_jobs.commands.verify.endpoint import Asked, questions_of, verify_endpoint
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.golden import Golden
from optimizer_jobs.progress import say, step
from optimizer_jobs.stores.published import open_bundle
from retune.contract.requests import BundleRef, VerifyRequest
from retune.contract.results import Reason, VerifyResult


def run(request: VerifyRequest, *, patience: Patience = PATIENCE) -> VerifyResult:
    """Ask every endpoint every golden request, or what users have asked; or only see that the bundle is whole.

    Raises:
        JobError: GoldenMismatch, VariableIgnored, ProtocolMismatch or ServerUnreachable, which name the endpoint; what
            `shadow.shadowed` raises; or a fault of the bundle.
    """
    bundle = open_bundle(request.bundle.uri, digest=request.bundle.digest)
    golden = bundle.golden
    if request.bundle_alone:
        return VerifyResult(bundle_digest=bundle.digest, pods=0, requests=0)
    if not request.endpoints or not golden.requests:
        raise JobError(Reason.REQUEST_INVALID, request.resource, "there is nothing to ask.", "Name a pod to verify.")
    if request.shadow is not None:
        from optimizer_jobs.commands.verify.shadow import shadowed

        shadow = shadowed(bundle, request.shadow, request.endpoints, model=request.model_name)
        pods = len(request.endpoints)
        return VerifyResult(bundle_digest=bundle.digest, pods=pods, requests=shadow.requests, shadow=shadow)
    questions = questions_of(golden, _golden_of(request.champion))
    named = []
    for number, endpoint in enumerate(request.endpoints, start=1):
        step(number, len(request.endpoints), text=f"asking {endpoint}", about="1 s")
        asked = Asked(endpoint, model=request.model_name, golden=golden, digest=bundle.digest)
        named.append(verify_endpoint(asked, questions, patience=patience))
    tells = any(question.differs for question in questions)
    return VerifyResult(
        bundle_digest=bundle.digest,
        pods=len(request.endpoints),
        requests=len(golden.requests),
        shown_by="Digest" if all(named) else "Answers" if tells else None,
    )


def _golden_of(champion: BundleRef | None) -> Golden:
    """Return the golden requests of the version before; none where its bundle cannot be read any more."""
    try:
        return open_bundle(champion.uri, digest=champion.digest).golden if champion else Golden()
    except JobError as error:
        say(f"  the version before cannot be compared with: {error.message}")
        return Golden()

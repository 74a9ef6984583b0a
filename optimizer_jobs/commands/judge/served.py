"""The server of `spec.serving.image` beside the judge: it serves champion and finalists, and is asked for the times.

All of them are loaded in the one server, side by side, and answer their golden requests before anything is timed. A
finalist that the server refuses, or answers otherwise, has lost; without the champion nothing can be compared.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.measure.mix import served_mix
from optimizer_jobs.measure.stream import Feed, Stream
from optimizer_jobs.models.engine import EngineError, Session
from optimizer_jobs.models.golden import replay
from optimizer_jobs.progress import say
from optimizer_jobs.serving.running.ovms import OvmsServer
from optimizer_jobs.serving.running.session import ServedSession
from optimizer_jobs.serving.running.triton import TritonServer
from optimizer_jobs.serving.running.web import Web, wait_until
from retune.api.search import Serving
from retune.contract.exits import Exit
from retune.contract.requests import Server
from retune.contract.results import Reason
from retune.contract.serving import SERVER_ADDRESS_VARIABLE, SERVER_FOLDER_VARIABLE, server_of

READY_SECONDS = 300.0
"""Longest time for the server to start, once its image is there."""
CALL_SECONDS = 60.0
"""Longest time of one answer of a model."""
_SAID = 240
"""Characters of what was wrong with a finalist that the verdict tells."""
_LOST = "it does not serve the champion any more, as a server that has ended and was started again"
_CHAMPION, _AGAIN, _CANDIDATE = "champion", "champion-again", "candidate"


@dataclass(frozen=True)
class Out:
    """A finalist that the server does not serve as it was made."""

    digest: str
    reason: Reason
    sentence: str
    """Which it is and what was wrong, in the server's words where it said any."""


@dataclass(frozen=True)
class Through:
    """Champion and finalists as the server serves them."""

    web: Web
    image: str
    sessions: Mapping[str, Session]
    """By digest, the champion first."""
    twin: Session
    """The champion, loaded a second time."""
    has_champion: Callable[[], bool]
    """Asks the server whether it serves the champion still."""
    out: tuple[Out, ...] = ()
    about: str | None = None
    """Name and version that the server gives itself."""

    @property
    def words(self) -> str:
        """What was measured through it, as a sentence."""
        name = f"{self.about}, " if self.about else ""
        return f"Latency was measured through the server itself: {name}image {self.image}."

    def left(self, finalists: Sequence[Entrant]) -> tuple[Entrant, ...]:
        """Return the finalists that it serves."""
        return tuple(finalist for finalist in finalists if finalist.bundle.digest in self.sessions)


def beside_us(serving: Serving) -> TritonServer | OvmsServer | None:
    """Return the server that runs beside this process, which the environment names; None where none does."""
    address, folder = (os.environ.get(name) for name in (SERVER_ADDRESS_VARIABLE, SERVER_FOLDER_VARIABLE))
    if serving.image is None or not address or not folder:
        return None
    return (OvmsServer if server_of(serving) is Server.OVMS else TritonServer)(address, Path(folder))


@contextmanager
def through(champion: Entrant, finalists: Sequence[Entrant], rows: Rows, *, rules: Rules) -> Iterator[Through | None]:
    """Have the server beside us serve all models, and ask it while this lasts; None where there is no server.

    Nothing is unloaded: the server and its folder end with the judge's pod.

    Args:
        champion: The champion.
        finalists: The models that may replace it.
        rows: The test rows, of which only the inputs are used.
        rules: The rules of the judgement.

    Raises:
        JobError: ServerUnreachable, or the server does not serve the champion as it was made.
    """
    server = beside_us(rules.serving)
    if server is None or rules.serving.image is None:
        yield None
        return
    about = _started(server)
    with ExitStack() as stack:
        host = _Host(server, champion, stack, rules, rows)
        first, twin = (host.must_serve_champion(name) for name in (_CHAMPION, _AGAIN))
        opened = {champion.bundle.digest: first}
        served = Through(server.web, rules.serving.image, opened, twin, host.has_champion, about=about)
        for number, finalist in enumerate(finalists, start=1):
            found = host.try_to_serve(finalist, f"{_CANDIDATE}-{number}")
            if isinstance(found, Out):
                served = replace(served, out=(*served.out, found))
            else:
                opened[finalist.bundle.digest] = found
        yield served


@contextmanager
def told_as_refusal(served: Through | None) -> Iterator[None]:
    """Tell an EngineError while a server is asked as what it is: a request of the test rows that the server refuses.

    Kubelets start a server that has ended again. It is there then, and refuses every request.
    """
    try:
        yield
    except EngineError as error:
        if served is None:
            raise
        if not served.has_champion():
            raise served.web.unreachable(_LOST) from error
        raise served.web.refused("a request with test rows", printable(str(error), limit=_SAID)) from error


def _started(server: TritonServer | OvmsServer) -> str | None:
    """Wait until the server is ready, and return what it calls itself."""
    say(f"  waiting for {server.web.server} at {server.web.address}")
    if not wait_until(server.web.is_ready, seconds=READY_SECONDS):
        raise server.web.unreachable(f"it is not ready after {READY_SECONDS:g} s")
    about = server.web.about
    say(f"  {about or server.web.server} is ready")
    return about


@dataclass(frozen=True)
class _Host:
    """Loads models in the server, and asks each what it has to answer before it is timed."""

    server: TritonServer | OvmsServer
    champion: Entrant
    stack: ExitStack
    rules: Rules
    rows: Rows

    def has_champion(self) -> bool:
        """Return whether the server serves the champion still."""
        return self.server.serves(self.champion.bundle, name=_CHAMPION)

    def must_serve_champion(self, name: str) -> Session:
        """Return the champion as it is served; raises JobError where it is not."""
        session = self._loaded(self.champion, name)
        if wrong := self._wrong(session, self.champion):
            raise JobError(
                wrong[0],
                f"the champion in {self.server.web.server}",
                f"{wrong[1]}.",
                "The champion stays, and nothing can be compared with it. Name the image that serves it in "
                "spec.serving.image, or leave the field out: then the judge measures in its own engine.",
                Exit.BAD_INPUT,
            )
        return session

    def try_to_serve(self, finalist: Entrant, name: str) -> Session | Out:
        """Return a finalist as it is served, or why it has lost; raises JobError where the server does not answer."""
        try:
            session = self._loaded(finalist, name)
        except JobError as error:
            if error.reason is Reason.SERVER_UNREACHABLE:
                raise
            return self._out(finalist, error.reason, error.message.rstrip("."))
        wrong = self._wrong(session, finalist)
        return self._out(finalist, *wrong) if wrong else session

    def _out(self, finalist: Entrant, reason: Reason, fault: str) -> Out:
        """Return that a finalist has lost; raises JobError where the server has lost all that it served."""
        if not self.has_champion():
            raise self.server.web.unreachable(_LOST)
        server = self.server.web.server
        sentence = f"{finalist.plan} has lost in {server}: {printable(fault, limit=_SAID)}."
        say(f"  {sentence}")
        return Out(finalist.bundle.digest, reason, sentence)

    def _loaded(self, entrant: Entrant, name: str) -> ServedSession:
        self.server.load(entrant.bundle, name=name)
        session = self.server.session(entrant.bundle, name=name, seconds=CALL_SECONDS)
        self.stack.callback(session.close)
        return session

    def _wrong(self, session: Session, entrant: Entrant) -> tuple[Reason, str] | None:
        """Return reason and fault of an answer that is not what the bundle was made with; None without any."""
        golden = entrant.bundle.golden
        try:
            differences = (replay(session, request, golden=golden) for request in golden.requests)
            if difference := next(filter(None, differences), None):
                return Reason.GOLDEN_MISMATCH, f"it answers a golden request otherwise: {difference}"
            for feed in self._feeds(session):
                session.run(feed)
        except EngineError as error:
            return Reason.SERVER_REFUSED, f"it refuses a request: {printable(str(error), limit=_SAID)}"
        return None

    def _feeds(self, session: Session) -> Sequence[Feed]:
        """Return a request of real rows of each size that will be timed."""
        mix = served_mix(self.rules.serving, session.signature)
        return Stream(self.rows, mix, random.Random(self.rules.seed), signature=session.signature).first(1)

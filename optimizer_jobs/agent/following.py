"""Beside a running server: have it serve the wanted bundle, whatever happens to either of them.

Every look compares what is wanted with what the server serves, and acts on the difference, so that nothing is lost
with a process that ends. What serves is taken away only by a version that has been asked its golden requests.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from optimizer_jobs.agent.environment import sentence_of
from optimizer_jobs.agent.opening import fetched
from optimizer_jobs.agent.wanted import digest_in, read_wanted
from optimizer_jobs.commands.verify.asking import Patience
from optimizer_jobs.commands.verify.endpoint import Asked, questions_of, verify_endpoint
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.golden import Golden
from optimizer_jobs.progress import say
from optimizer_jobs.serving.running import RunningServer
from retune.contract.results import Reason

LOOK_SECONDS = 2.0
"""Time between two looks, and the first pause after a failure."""
_LONGEST_SECONDS, _STARTING_SECONDS = 300.0, 10.0
"""Longest pauses between two attempts: at what stays as it is until somebody acts, and at a server that starts."""
_TRIAL = "retune-next"
_PATIENCE = Patience(call_seconds=10.0, total_seconds=30.0)


@dataclass(frozen=True)
class Standing:
    """What is wanted and what serves, as of the last look."""

    wanted: str | None = None
    """URI of the wanted bundle; None where nothing is wanted."""
    served: str | None = None
    """Digest of the bundle that golden requests have proved, and that the server still says it serves."""
    fault: str | None = None
    """Why the server does not serve what is wanted, as a sentence."""
    reason: Reason | None = None
    """The same as a word, for programs."""
    failures: int = 0
    """Attempts that failed in a row."""
    loads: int = 0
    """Times that the server was given a bundle since this process started."""

    @property
    def is_ready(self) -> bool:
        """Whether what is wanted serves, and has been proved; where nothing is wanted, there is nothing to wait for."""
        if self.wanted is None or self.fault is not None:
            return self.fault is None
        return self.served == digest_in(self.wanted)


@dataclass
class Follower:
    """Makes one server serve what a file names."""

    server: RunningServer
    name: str
    """Name that clients ask the model by."""
    wanted: Path
    """The file with the URI of the wanted bundle."""
    scratch: Path
    """A folder of its own for private copies of bundles."""
    uris: dict[str, str] = field(default_factory=dict)
    """Where each bundle that was opened lies, by its digest."""
    tries: bool = True
    """Whether the server can have a bundle under another name first, beside what users ask."""
    patience: Patience = _PATIENCE
    clock: Callable[[], float] = time.monotonic
    standing: Standing = field(default_factory=Standing)
    _opened: dict[str, Bundle] = field(default_factory=dict)
    """Verified copies by URI: of what is wanted, and of what was proved last."""
    _proved: Bundle | None = None
    _said: str | None = None
    _not_before: float = 0.0
    _is_tidy: bool = False

    def look(self) -> Standing:
        """Look once, and do what there is to do; returns how it stands then. A fault is a sentence in it."""
        try:
            self._heed(read_wanted(self.wanted))
        except JobError as error:
            self._failed(sentence_of(error), error.reason)
        except OSError as error:
            self._failed(f"{self.scratch}: {error}.", Reason.UNEXPECTED)
        return self.standing

    def _heed(self, wanted: str | None) -> None:
        if wanted != self.standing.wanted:
            self.standing = replace(self.standing, wanted=wanted, failures=0, fault=None, reason=None)
            self._not_before = 0.0
        if wanted is None:
            self.standing = replace(self.standing, failures=0, fault=None, reason=None)
            self._say("nothing is wanted, so the server keeps what it serves")
        elif self.clock() >= self._not_before:
            self._follow(wanted)
            self.standing = replace(self.standing, failures=0, fault=None, reason=None)
        else:
            self._keep_former()

    def _follow(self, uri: str) -> None:
        """Have the server serve the bundle at a URI, and prove it; raises JobError where it does not."""
        bundle = self._bundle(uri)
        self._tidy_up()
        if not self.server.serves(bundle, name=self.name):
            self._note_former()
            self._give(bundle)
        elif self.standing.served == bundle.digest:
            return
        self._prove(bundle, self.name)
        self._proved = bundle
        self.standing = replace(self.standing, served=bundle.digest)
        self._forget_others(uri)
        self._say(f"the server serves {uri}, which its golden requests have proved")

    def _give(self, bundle: Bundle) -> None:
        """Load a bundle in the place of the one before, after it has answered under another name where it can."""
        if self.tries:
            self._try(bundle)
        self.standing = replace(self.standing, loads=self.standing.loads + 1)
        self.server.load(bundle, name=self.name)
        try:
            self._prove(bundle, self.name)
        except JobError:
            self._keep_former()
            raise

    def _try(self, bundle: Bundle) -> None:
        """Ask the golden requests of a bundle that no user asks yet."""
        name = f"{self.name}.{_TRIAL}"
        try:
            self.server.load(bundle, name=name)
            self._prove(bundle, name)
        finally:
            with suppress(JobError):
                self.server.unload(name=name)

    def _prove(self, bundle: Bundle, name: str) -> None:
        """Ask the golden requests, as the verify Job does; raises JobError where an answer is not the bundle's."""
        address = self.server.endpoint(name=name).partition("/v2/models/")[0]
        asked = Asked(address, model=name, golden=bundle.golden, digest=bundle.digest)
        verify_endpoint(asked, questions_of(bundle.golden, Golden()), patience=self.patience)

    def _note_former(self) -> bool:
        """See whether the version that was proved last serves still, and return it."""
        former = self._proved
        serves = former is not None and self.server.serves(former, name=self.name)
        self.standing = replace(self.standing, served=former.digest if former and serves else None)
        return serves

    def _keep_former(self) -> None:
        """Give the server the version that was proved last, where it does not serve that and cannot have the new one.

        A process of the agent that started later knows of none.
        """
        former = self._proved
        with suppress(JobError):  # the next look tries again
            if former is not None and not self._note_former():
                self.server.load(former, name=self.name)
                self._note_former()
                self._say(f"the server was given back bundle {former.digest}")

    def _tidy_up(self) -> None:
        """Unload what an earlier process of this agent was trying when it ended."""
        if self.tries and not self._is_tidy:
            self.server.unload(name=f"{self.name}.{_TRIAL}")
        self._is_tidy = True

    def _bundle(self, uri: str) -> Bundle:
        """Return the verified bundle at a URI, of which a private copy is kept for when the server starts again."""
        self._forget_others(uri)
        if uri not in self._opened:
            folder = Path(tempfile.mkdtemp(prefix="bundle-", dir=self.scratch))
            try:
                found = fetched(uri, into=folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            if isinstance(found, Path):
                raise JobError(Reason.BUNDLE_NOT_FOUND, uri, "there is no bundle.", "Restore it, or name another one.")
            self._opened[uri], self.uris[found.digest] = found, uri
        return self._opened[uri]

    def _forget_others(self, uri: str) -> None:
        """Remove the copies of bundles that are neither wanted nor the one that was proved last."""
        for other in [key for key, known in self._opened.items() if key != uri and known is not self._proved]:
            shutil.rmtree(self._opened.pop(other).folder.parent, ignore_errors=True)

    def _failed(self, why: str, reason: Reason) -> None:
        """Note a failure, after which the next attempt has to wait; what was proved before is kept.

        Args:
            why: The fault, as a sentence.
            reason: The same as a word; that of a server that starts passes by itself, so that it is tried again soon.
        """
        self._keep_former()
        failures = self.standing.failures + 1
        longest = _STARTING_SECONDS if reason is Reason.SERVER_UNREACHABLE else _LONGEST_SECONDS
        pause = min(LOOK_SECONDS * 2 ** min(failures - 1, 16), longest)
        self._not_before = self.clock() + pause
        self.standing = replace(self.standing, fault=why, reason=reason, failures=failures)
        kept = f" Bundle {self.standing.served} serves on." if self.standing.served else ""
        self._say(f"{why}{kept}")

    def _say(self, words: str) -> None:
        """Write a line, but not the same one again."""
        if words != self._said:
            self._said = words
            say(f"{self.name}: {words}")

"""The device's loop: take a message, work on it, reply; through losses of link, server and power."""

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from weakref import ref

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedpress.client.edge.backoff import Backoff
from fedpress.client.edge.journal import Journal
from fedpress.client.edge.limits import Availability
from fedpress.client.edge.status import Status
from fedpress.common.errors import DataError, RefusedError, RunFinishedError, ServerError, SettingError, VersionError
from fedpress.common.forks import forks_end_here
from fedpress.common.logs import LOGGER
from fedpress.common.settings import Value
from fedpress.flower.fleet_api import FleetApi, RunInfo, failure, letter_of, message_of
from fedpress.flower.mail import IncomingMessage, OutgoingReply
from fedpress.settings.device import PollingSettings
from fedpress.settings.run import named_objects

# A run may have these tasks made; what else is installed is not for the server to call.
TASKS = ("fedpress.simulations.workloads:task",)
_SAVED = 60.0  # seconds between two notes of what was used

_log = logging.getLogger(LOGGER)


class Runner:
    """One device at work. `run` returns when `stop` is called, at the next moment that it notices."""

    def __init__(
        self,
        fleet: FleetApi,
        journal: Journal,
        app: ClientApp,
        *,
        node: Mapping[str, Value],
        polling: PollingSettings,
        gate: Availability,
        tasks: tuple[str, ...] = (),
        status: Status | None = None,
    ) -> None:
        """`node` is the node's configuration; `tasks` what a run may name beside fedpress's own."""
        self.status = status or Status()
        self._fleet = fleet
        self._journal = journal
        self._app = app
        self._node = dict(node)
        self._pace = Backoff(polling)
        self._polling = polling
        self._gate = gate
        self._tasks = {*TASKS, *tasks}
        self._runs: dict[int, RunInfo] = {}
        self._stopping = threading.Event()
        self._said = ""  # the last complaint: each is logged once
        self._saved = float("-inf")
        self._work: IncomingMessage | None = None
        self._letter: OutgoingReply | None = None
        self._confirmed = False

    def run(self) -> None:
        """Work until stopped."""
        self._restore()
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        while not self._stopping.is_set():
            try:
                wait = self._step()
            except RefusedError as error:
                self.status.connect(False)
                wait = self._complain("key", error, self._pace.refused())
            except VersionError as error:
                wait = self._complain("version", error, self._pace.refused())
            except ServerError as error:
                wait = self._complain("server", error, self._pace.away())
            self._save()
            if wait:
                self._stopping.wait(wait)

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping.set()

    def leave(self) -> None:
        """Sign off: the server asks others, and whatever was taken and not answered is dropped."""
        self._journal.drop()
        self._save(now=True)
        if self.status.connected:
            with contextlib.suppress(ServerError):
                self._fleet.leave()

    def _restore(self) -> None:
        """Go on where the last process was."""
        with self._mended():
            self._letter = self._journal.letter()
        with self._mended():
            self._work = self._journal.work()
        if self._letter:
            _log.info("a reply of the last time is to be sent")
        elif self._work:
            _log.info("a message of the last time is to be worked on")

    @contextlib.contextmanager
    def _mended(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            self.status.failures["disk"] += 1
            _log.error("%s", error)

    def _step(self) -> float:
        """Do the next thing there is to do; return how long to wait then, seconds."""
        if not self._letter and not self._work:
            reason, wait = self._gate.holds()
            self._hold(reason)
            if reason:
                return wait
        if not self.status.connected:
            self._connect()
        try:
            if self._letter:
                self._push(self._letter)
            elif self._work:
                self._answer(self._work)
            else:
                return self._ask()
        except RunFinishedError as error:
            self._finish(f"given up: {error}")
        return 0.0

    def _hold(self, reason: str) -> None:
        if reason == self.status.holding:
            return
        self.status.holding = reason
        _log.info("takes no work: %s", reason) if reason else _log.info("takes work again")
        if reason and self.status.connected:
            self.status.connect(False)
            with contextlib.suppress(ServerError):
                self._fleet.leave()

    def _connect(self) -> None:
        known = int(self._journal.noted("node").get("id", 0))
        node = self._fleet.connect(known)
        if node != known:
            self._journal.note("node", {"id": node})
        self.status.connect(True)
        self._said = ""
        _log.info("connected, as node %d", node)

    def _ask(self) -> float:
        work = self._fleet.pull()
        if self._said:
            self._said = ""
            _log.info("the server answers again")
            self._fleet.heartbeat()  # it may have given this node up meanwhile
        if work is None:
            return self._pace.idle()
        self._pace.busy()
        self._work, self._confirmed = work, False
        self._keep(work)
        return 0.0

    def _answer(self, work: IncomingMessage) -> None:
        if work.objects is None:
            work = self._work = self._fleet.fetch(work)
            self._keep(work)
        if not self._confirmed:
            self._fleet.confirm(work)
            self._confirmed = True
        if work.run not in self._runs:
            self._runs = {work.run: self._fleet.run(work.run)}
            _log.info("run %d", work.run)
        run = self._runs[work.run]
        message = message_of(work)
        left = message.metadata.created_at + message.metadata.ttl - time.time()
        if left <= 0:
            self._finish("given up: it is too old to be answered")
            return
        kind = message.metadata.message_type
        _log.info("%s begins", kind)
        began = time.monotonic()
        self._letter = self._reply(work, message, run)
        seconds = time.monotonic() - began
        del message
        gc.collect()  # models in cycles: a few large objects do not wake the collector
        self.status.seconds += seconds
        self.status.messages[kind.split(".")[0]] += 1
        _log.info("%s is done in %.2f s", kind, seconds)

    def _reply(self, work: IncomingMessage, message: Message, run: RunInfo) -> OutgoingReply:
        """Return the app's reply, or the error in its place; the state after it is on the disk then."""
        try:
            state = self._journal.load(run.series)
        except DataError as error:
            self.status.failures["disk"] += 1
            _log.error("%s", error)
            state = RecordDict()
        before = _looks(state)
        context = Context(work.run, self._fleet.node, dict(self._node), state, dict(run.config), run.series)
        began = time.monotonic()
        try:
            self._check(run)
            with forks_end_here():
                reply = self._app(message, context)
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever an app does, the device lives on
            self.status.failures["app"] += 1
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _log.error("the app failed: %s", reason, exc_info=_log.isEnabledFor(logging.DEBUG))
            return letter_of(work, failure(message, reason), time.monotonic() - began)
        letter = letter_of(work, reply, time.monotonic() - began)
        if reply.has_error() or _looks(context.state) == before:
            return letter  # nothing to keep: the message is worked on again if this process ends before it is sent
        try:
            self._journal.commit(run.series, context.state, letter)
        except OSError as error:
            self.status.failures["disk"] += 1
            reason = f"the state cannot be kept: {error.strerror}: {self._journal.folder}"
            _log.error("%s", reason)
            # What the disk has is the state before this round, whole: with no reply nothing was sent that it lacks.
            return letter_of(work, failure(message, reason), time.monotonic() - began)
        return letter

    def _check(self, run: RunInfo) -> None:
        for key, name in named_objects(run.config).items():
            if ":" in name and name not in self._tasks:
                raise SettingError(f"this device makes no {key} {name!r}: its client.toml does not name it in tasks")

    def _push(self, letter: OutgoingReply) -> None:
        wanted = self._fleet.push(letter)
        self._pace.busy()
        self._finish("" if wanted else "the server does not want the reply: it came too late, or was there already")

    def _finish(self, why: str) -> None:
        done = self._letter.to if self._letter else self._work.id if self._work else ""
        self._journal.done(done)
        self._letter = None
        if self._work and self._work.id == done:
            self._work = None
        _log.info("%s", why or "the reply is sent")

    def _keep(self, work: IncomingMessage) -> None:
        try:
            self._journal.take(work)
        except OSError as error:
            self.status.failures["disk"] += 1
            _log.warning("the message is not kept on the disk: %s", error.strerror)

    def _complain(self, kind: str, error: ServerError, wait: float) -> float:
        self.status.failures[kind] += 1
        line = str(error)
        if line != self._said:
            self._said = line
            _log.warning("%s", line)
        return wait

    def _save(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._saved >= _SAVED:
            self._saved = time.monotonic()
            self._journal.note("usage", self._gate.keep())

    def _beat(self) -> None:
        """Tell the server, from a thread of its own, that this device is there."""
        while not self._stopping.wait(self._polling.heartbeat):
            if not self.status.connected:
                continue
            try:
                self._fleet.heartbeat()
            except RefusedError:
                self.status.connect(False)
            except ServerError as error:
                _log.debug("no heartbeat: %s", error)


def _looks(state: RecordDict) -> list[object]:
    """Return what tells whether a state was changed: arrays are replaced, never written to. None is kept alive."""
    return [
        (key, [(name, ref(value) if isinstance(record, ArrayRecord) else value) for name, value in record.items()])
        for key, record in state.items()
    ]

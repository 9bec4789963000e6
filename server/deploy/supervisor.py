"""`fedpress server`: SuperLink, the gate before it, the keys that pass, and one run; what falls is brought back up."""

import logging
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpress.common.address import join_address
from fedpress.common.errors import DataError, FedpressError, SettingError
from fedpress.common.files import locked, make_folder, resolved
from fedpress.common.logs import LOGGER, limit_logs, log_to_file
from fedpress.flower.control_api import ControlApi, RegisteredNode, SuperLinkUnavailableError
from fedpress.flower.polling_grid import ARRIVED, SENT
from fedpress.flower.signal_file import SignalFile
from fedpress.server.deploy.authentication import Admission
from fedpress.server.deploy.device_registry import NODES, Devices, NodeRegistrar
from fedpress.server.deploy.fleet_proxy import Gate, Traffic
from fedpress.server.deploy.health import Health
from fedpress.server.deploy.listener import Listener, is_loopback
from fedpress.server.deploy.metrics import Metrics
from fedpress.server.deploy.state import NodeState, Records, State
from fedpress.server.deploy.superlink import DATABASE, HOME, LOG, SuperLink
from fedpress.server.keys.authority import CERTIFICATE, load_pair
from fedpress.server.keys.authority import KEY as SECRET
from fedpress.server.run.bundle import Report, check, write_bundle
from fedpress.server.run.configuration import save_config
from fedpress.server.run.recorder import CHECKPOINT, MODEL, RESULT, TRAFFIC
from fedpress.settings import RunSettings

_log = logging.getLogger(LOGGER)

Watch = Callable[[State], None]
_PACE, _LOOK, _ASK = 0.1, 1.0, 4.0  # seconds between two looks at the processes, at the keys, and at SuperLink
_FALLS = 5  # restarts without a round in between after which it is given up
_PATIENCE = 10.0  # seconds in which a ServerApp whose run is over says how it ended


@dataclass(frozen=True)
class Place:
    """The addresses and folders of a server.

    `keys` is the folder of keys, None where there are none; then only loopback is served unless `anywhere`.
    """

    host: str
    port: int
    keys: Path | None
    anywhere: bool = False
    health: str = ""  # HOST:PORT; empty for none
    metrics: str = ""


def serve(settings: RunSettings, place: Place, watch: Watch) -> dict[str, Any]:
    """Run the federation that `settings` describe; return what its result.json holds.

    `watch` is called with the state about once a second, and whenever a round is done.

    Raises
    ------
    SettingError
        If the folder holds a run already and `resume` is not set, or an address cannot be listened on.
    DataError
        If the keys are not there, or not what was written.
    FolderInUseError
        If another process uses the run's folder.
    FedpressError
        If the ServerApp raises, or SuperLink or the ServerApp falls again and again. All processes are gone by then.
    """
    if place.keys is None and not place.anywhere and not is_loopback(place.host):
        raise SettingError(
            f"without keys a server listens on loopback alone, got {place.host}: --insecure-anywhere lets anybody in"
        )
    if place.keys is not None:
        _check_keys(place.keys)
    folder = resolved(Path(settings.run.out))
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o077))  # the folder holds the devices' updates: nobody else reads it
        make_folder(folder)
        stack.enter_context(locked(folder, "server"))
        changes = _prepare(folder, settings)
        stack.enter_context(log_to_file(folder / LOG, {LOGGER: logging.INFO}))
        for key, (before, after) in changes.items():
            if key != "run.resume":
                _log.info("%s is %r from now on; it was %r", key, after, before)
        limit_logs(settings.run.log_bytes, settings.run.log_files)
        stack.callback(shutil.rmtree, folder / HOME, ignore_errors=True)
        return _Server(settings, place, folder, watch, stack).run()


class _Server:
    def __init__(self, settings: RunSettings, place: Place, folder: Path, watch: Watch, stack: ExitStack) -> None:
        self._settings = settings.change("run", out=str(folder))
        self._folder = folder
        self._watch = watch
        self._stack = stack
        self._records = Records(folder)
        self._falls = 0
        self._nodes: list[RegisteredNode] = []
        self._resume = settings.run.resume
        self._devices = Devices(place.keys) if place.keys else None
        self._enrolment = NodeRegistrar(self._devices, folder / NODES) if self._devices else None
        self._link = SuperLink(folder, authenticated=place.keys is not None)
        stack.callback(self._link.stop)
        self._gate = Gate(
            f"https://{self._link.address}",
            ssl.create_default_context(cadata=self._link.root.decode()),
            Admission(self._devices) if self._devices else None,
            settings.deployment.max_body,
            SignalFile(folder / HOME / SENT),
            SignalFile(folder / HOME / ARRIVED),
        )
        stack.callback(self._gate.refusals.close)
        certificate = (place.keys / CERTIFICATE, place.keys / SECRET) if place.keys else None
        self._listener = Listener(self._gate, place.host, place.port, certificate)
        stack.callback(self._listener.stop)
        self._state = State(wanted=settings.deployment.nodes, rounds=settings.server.rounds)
        self._health = stack.enter_context(_closing(Health(place.health))) if place.health else None
        if place.metrics:
            stack.enter_context(_closing(Metrics(place.metrics, self._state)))
        self._bundle = folder / HOME / "bundle"
        self._pipe = folder / HOME / "report"
        self._where = join_address(place.host, self._listener.port)

    def run(self) -> dict[str, Any]:
        self._show("starting")
        self._link.start()
        self._look()
        self._listener.start()
        _log.info("the gate listens on %s", self._where)
        while True:
            try:
                done = self._try()
            except SuperLinkUnavailableError as error:
                _log.warning("%s", error)
                done = False
            if done:
                self._state.nodes = self._describe(self._nodes)
                self._show("done")
                return self._records.result
            self._fell()

    def _try(self) -> bool:
        """Start a run and follow it; return whether it came to its end, False if it was killed on the way."""
        with Report(self._pipe) as report, self._link.control() as control:
            for old in control.unfinished():  # of a server, or a ServerApp, that was killed
                control.stop_run(old)
            run = self._start(control)
            looked = asked = over = 0.0
            while not report.is_over():
                if not self._link.alive:
                    return False
                now = time.monotonic()
                waits = self._state.phase != "running"
                if now - looked >= _LOOK and (self._keys_changed() or waits or now - asked >= _ASK):
                    looked = asked = now
                    try:
                        self._look(control)
                        status = control.status(run)
                    except (
                        SuperLinkUnavailableError
                    ) as error:  # it falls, or is slow: the next look at its process tells
                        _log.warning("%s", error)
                        time.sleep(_PACE)
                        continue
                    if status.over and not report.text and "exception" in status.details:
                        raise FedpressError(f"the run did not begin: {status.details}")
                    over = over or (now if status.over else 0.0)
                    if over and now - over > _PATIENCE:  # it was killed before it could say anything
                        return False
                elif self._refresh():
                    self._show("running")
                time.sleep(_PACE)
        self._refresh()
        if report.broken:
            return False
        check(report.text)
        return True

    def _start(self, control: ControlApi) -> int:
        names, signals = (str(self._folder / name) if self._enrolment else "" for name in (NODES, HOME))
        settings = self._settings.change("run", resume=self._resume)
        settings = settings.change("deployment", node_names=names, signals=signals)
        config = settings.to_config()
        shutil.rmtree(self._bundle, ignore_errors=True)
        write_bundle(
            self._bundle,
            settings.deployment.app,
            settings.deployment.client_app,
            num_clients=settings.deployment.nodes,
            run_config=config,
            report=self._pipe,
            log=self._folder / LOG,
        )
        return control.start_run(self._bundle, config)

    def _fell(self) -> None:
        """Restart the processes that ended unexpectedly; raise FedpressError if they end again and again."""
        self._falls += 1
        self._state.restarts += 1
        answers = self._link.settle()  # its processes may still be on their way out
        what = "the ServerApp" if answers else "SuperLink"
        if self._falls > _FALLS:
            raise FedpressError(f"{what} ended {_FALLS} times without a round in between: see {self._folder / LOG}")
        _log.warning("%s ended unexpectedly: the run continues from its checkpoint", what)
        self._show(f"{what} ended, restarting")
        if not answers:
            self._link.start()
        self._resume = True

    def _look(self, control: ControlApi | None = None) -> None:
        """Bring keys and nodes in step, and tell what there is."""
        if control is None:
            with self._link.control() as own:
                self._look(own)
            return
        self._nodes = self._enrolment.step(control) if self._enrolment else control.nodes()
        self._refresh()
        self._state.nodes = self._describe(self._nodes)
        begun = bool(self._records.result.get("rounds"))
        wanted = self._settings.server.per_round if begun else self._settings.deployment.nodes
        online = sum(node.online for node in self._state.nodes)
        self._state.wanted = wanted
        self._state.advice = self._advise(wanted)
        self._show("waiting for nodes" if online < wanted else "running")

    def _advise(self, wanted: int) -> str:
        """Return what to do if more nodes are wanted than can come."""
        enrolled = len(self._devices.valid) if self._devices else wanted
        if enrolled >= wanted:
            return ""
        remedy = f"--set nodes={max(enrolled, 1)}"
        if self._settings.server.per_round > enrolled:
            remedy += f" --set per-round={max(enrolled, 1)}"
        return (
            f"a round needs {wanted} nodes, and {enrolled} have a valid key: `fedpress keys issue NAME` adds one, "
            f"or stop this server and continue with --resume {remedy}"
        )

    def _keys_changed(self) -> bool:
        """Read the keys' folder; return whether there is something for SuperLink in it."""
        if self._devices is None or self._enrolment is None:
            return False
        self._devices.refresh()
        return self._enrolment.behind

    def _refresh(self) -> bool:
        """Read what the ServerApp wrote; return whether there is a round more."""
        if not self._records.refresh():
            return False
        self._falls = 0
        return True

    def _describe(self, nodes: list[RegisteredNode]) -> list[NodeState]:
        names = {node: name for name, node in self._enrolment.ids.items()} if self._enrolment else {}
        described = []
        for node in nodes:
            name = names.get(node.id, str(node.id))
            traffic = self._gate.traffic.get(name, Traffic())
            described.append(
                NodeState(
                    name=name,
                    id=node.id,
                    online=node.status == "online",
                    seen=max(node.seen, traffic.seen),
                    version=self._records.held.get(name, ""),
                    up=traffic.up,
                    down=traffic.down,
                    failures=self._records.failures.get(name, 0),
                )
            )
        return sorted(described, key=lambda state: state.name)

    def _show(self, phase: str) -> None:
        self._state.phase = phase
        self._state.result = self._records.result
        self._state.refusals = dict(self._gate.refusals.causes)
        if self._health:
            self._health.tell(superlink=self._link.alive, run=phase in ("running", "done"))
        self._watch(self._state)


def _check_keys(keys: Path) -> None:
    """Raise DataError if a server's keys are not there, or its certificate is over."""
    certificate, _ = load_pair(keys, CERTIFICATE, SECRET)
    left = certificate.not_valid_after_utc.timestamp() - time.time()
    if left <= 0:
        raise DataError(f"{keys / CERTIFICATE} has expired: `fedpress keys init --renew` makes a new one")


def _prepare(folder: Path, settings: RunSettings) -> dict[str, tuple[Any, Any]]:
    """Make the run's folder ready; return the settings that differ from those it was left with."""
    begun = any((folder / name).exists() for name in (RESULT, MODEL, TRAFFIC, CHECKPOINT, DATABASE))
    if begun and not settings.run.resume:
        raise SettingError(f"{settings.run.out} holds a run already: continue it with --resume, or name another folder")
    folder.chmod(0o700)
    make_folder(folder / CHECKPOINT)
    return save_config(folder, settings)


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    try:
        yield thing
    finally:
        thing.close()

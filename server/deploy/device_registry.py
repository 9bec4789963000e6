"""The devices that may take part: the keys in their folder, with which SuperLink is kept in step."""

import base64
import json
import logging
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.common.errors import DataError, FedpressError
from fedpress.common.files import replace
from fedpress.common.logs import LOGGER
from fedpress.flower.control_api import ControlApi, RegisteredNode, SuperLinkUnavailableError
from fedpress.server.keys.authority import DEVICES
from fedpress.server.keys.devices import Device, load_public_key, read_device

_log = logging.getLogger(LOGGER)

NODES = "nodes.json"


class Admitted(NamedTuple):
    """A device, and its key as it is needed for every request."""

    device: Device
    pem: bytes
    key: ec.EllipticCurvePublicKey

    @property
    def refused(self) -> str:
        """Why it may not take part: revoked or expired; empty if it may."""
        state = self.device.state()
        return "" if state == "valid" else state


class Devices:
    """The devices in a folder of keys, each file read again when it changed."""

    def __init__(self, keys: Path) -> None:
        self._folder = keys / DEVICES
        self._read: dict[Path, tuple[tuple[int, int, int], Admitted | None]] = {}
        self.by_key: dict[str, Admitted] = {}  # by its public key as requests carry it: PEM in base64

    @property
    def valid(self) -> list[Admitted]:
        """The devices whose keys are neither revoked nor expired."""
        return [one for one in self.by_key.values() if not one.refused]

    def refresh(self) -> None:
        """Look at the folder."""
        read: dict[Path, tuple[tuple[int, int, int], Admitted | None]] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                facts = path.stat()
            except FileNotFoundError:  # gone since it was listed
                continue
            mark = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            known = self._read.get(path)
            read[path] = known if known and known[0] == mark else (mark, _admit(path))
        self._read = read
        admitted = [one for _, one in read.values() if one]
        # A whole new table in one step: the gate looks things up meanwhile.
        self.by_key = {base64.b64encode(one.pem).decode(): one for one in admitted}


class NodeRegistrar:
    """Registers and unregisters keys with SuperLink as the folder says, and keeps nodes.json: name to node id."""

    def __init__(self, devices: Devices, path: Path) -> None:
        self._devices = devices
        self._path = path
        self.ids: dict[str, int] = {}
        self._written: dict[str, int] | None = None
        self._stepped: dict[str, bytes] = {}
        self._failed: set[bytes] = set()

    @property
    def behind(self) -> bool:
        """Whether SuperLink is not in step with what the devices' folder said last."""
        valid = {one.device.name: one.pem for one in self._devices.valid}
        return valid != self._stepped

    def step(self, control: ControlApi) -> list[RegisteredNode]:
        """Bring SuperLink in step; return the nodes that it has."""
        self._devices.refresh()
        nodes = control.nodes()
        registered = {node.public_key: node.id for node in nodes}
        wanted = {one.pem: one.device for one in self._devices.valid}
        for pem in registered.keys() - wanted.keys():
            control.unregister(registered.pop(pem))
            _log.info("a key is shut out: revoked, expired or no longer in %s", self._path.name)
        for pem in wanted.keys() - registered.keys():
            try:
                registered[pem] = control.register(wanted[pem].name, pem)
            except SuperLinkUnavailableError:
                raise
            except FedpressError as error:  # a key that was shut out is never let in again: SuperLink remembers it
                if pem not in self._failed:
                    self._failed.add(pem)
                    _log.warning("%s; issue it a new key", error)
                continue
            _log.info("node %s is registered", wanted[pem].name)
        self.ids = {device.name: registered[pem] for pem, device in wanted.items() if pem in registered}
        self._stepped = {device.name: pem for pem, device in wanted.items()}
        if self.ids != self._written:
            replace(self._path, json.dumps(dict(sorted(self.ids.items())), indent=1).encode(), durable=True)
            self._written = dict(self.ids)
        return nodes


def _admit(path: Path) -> Admitted | None:
    """Return the device in a file; None, with one line in the log, if the file holds no device."""
    try:
        device = read_device(path)
        return Admitted(device, device.pem, load_public_key(device.public_key))
    except DataError as error:
        _log.warning("%s", error)
        return None

"""Who may take part: the keys in the devices' folder, and SuperLink kept in step with them."""

import base64
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.compression.errors import FedpressError
from fedpress.compression.message import KEY
from fedpress.server.deploy.control import Control, Node
from fedpress.compression.files import replace

_log = logging.getLogger(KEY)

DEVICES, NODES = "devices", "nodes.json"


@dataclass(frozen=True)
class Device:
    """One enrolled device, as its file has it."""

    name: str
    pem: bytes  # its public key
    key: ec.EllipticCurvePublicKey
    expires: datetime
    revoked: bool

    @property
    def refused(self) -> str:
        """Why it may not take part: revoked or expired; empty if it may."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires <= datetime.now(UTC) else ""


class Devices:
    """The devices in a folder, read again where files changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[tuple[int, int, int], Device | None]] = {}
        self.by_key: dict[str, Device] = {}  # by its public key as requests carry it: PEM in base64

    def refresh(self) -> None:
        """Look at the folder."""
        read: dict[Path, tuple[tuple[int, int, int], Device | None]] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                facts = path.stat()
                mark = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
                known = self._read.get(path)
                read[path] = known if known and known[0] == mark else (mark, _read(path))
            except FileNotFoundError:  # gone since it was listed
                continue
        self._read = read
        devices = [device for _, device in read.values() if device]
        # A whole new table in one step: the gate looks things up meanwhile.
        self.by_key = {base64.b64encode(device.pem).decode(): device for device in devices}

    def __iter__(self) -> "iter[Device]":  # type: ignore[valid-type]
        return iter(list(self.by_key.values()))


class Enrolment:
    """Registers and unregisters keys with SuperLink as the folder says, and keeps nodes.json: name to node id."""

    def __init__(self, devices: Devices, path: Path) -> None:
        self._devices = devices
        self._path = path
        self.ids: dict[str, int] = {}
        self._written: dict[str, int] | None = None

    def step(self, control: Control) -> list[Node]:
        """Bring SuperLink in step; return the nodes that it has."""
        self._devices.refresh()
        nodes = control.nodes()
        registered = {node.public_key: node.id for node in nodes}
        wanted = {device.pem: device for device in self._devices if not device.refused}
        for pem in registered.keys() - wanted.keys():
            control.unregister(registered.pop(pem))
            _log.info("a key is shut out: revoked, expired or no longer in %s", self._path.name)
        for pem in wanted.keys() - registered.keys():
            registered[pem] = control.register(wanted[pem].name, pem)
            _log.info("node %s is registered", wanted[pem].name)
        self.ids = {device.name: registered[pem] for pem, device in wanted.items()}
        if self.ids != self._written:
            replace(self._path, json.dumps(dict(sorted(self.ids.items())), indent=1).encode(), durable=True)
            self._written = dict(self.ids)
        return nodes


def _read(path: Path) -> Device | None:
    """Return the device in a file; None, with one line in the log, if it is none."""
    try:
        told = json.loads(path.read_bytes())
        key = serialization.load_ssh_public_key(str(told["public_key"]).encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise FedpressError("its key is not on a NIST curve")
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        expires = datetime.fromisoformat(told["expires"])
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        return Device(str(told["name"]), pem, key, expires, bool(told["revoked"]))
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm, FedpressError) as error:
        _log.warning("%s is no device: %s: %s", path, type(error).__name__, error)
        return None

"""A client put together: settings, enrolment and state become a running device."""

import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.client.edge.journal import Journal
from fedpress.client.edge.limits import Availability, apply
from fedpress.client.edge.shutdown import on_stop
from fedpress.client.edge.status import Status
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import replace
from fedpress.common.logs import LOGGER
from fedpress.common.named import import_object
from fedpress.common.proxy import named_proxy
from fedpress.common.settings import Value
from fedpress.compression.third_party import import_codecs
from fedpress.flower.byte_counter import ByteCounter
from fedpress.settings.device import ClientSettings
from fedpress.settings.node import NodeConfig

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

_log = logging.getLogger(LOGGER)

Watch = Callable[[Status, ByteCounter], None]


def serve(
    settings: ClientSettings,
    *,
    name: str,
    server: str,
    key: ec.EllipticCurvePrivateKey | None,
    ca: bytes | None,
    node: dict[str, Value],
    watch: Watch | None = None,
) -> NoReturn:
    """Be a client until a signal to stop, which ends the process.

    Parameters
    ----------
    key, ca : ec.EllipticCurvePrivateKey | None
        None without an enrolment: the connection is plain, and the key one that is kept with the state.
    node : dict of str to Value
        The node's configuration, of its enrolment; the settings' own, its name and its data are added.
    watch : Watch | None
        Called once all is ready: starts health service and metrics, if they were asked for.

    Raises
    ------
    SettingError
        If the app, the data or a limit cannot be had.
    FolderInUseError
        If the state folder is another client's.
    DataError
        If the state folder cannot be used.
    """
    journal = Journal(Path(settings.device.state) if settings.device.state else state_folder(name))
    own = {"name": name} | ({"data": settings.device.data} if settings.device.data else {})
    config = {**node, **dict(settings.node.arguments), **own}
    data = NodeConfig.read(config, 0).data
    # torch reads how many threads it may have when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.limits.threads))
    import torch

    torch.set_num_threads(settings.limits.threads)
    from fedpress.client.edge.runner import Runner
    from fedpress.flower.fleet_api import FleetApi

    app = _load(settings.device.app)
    import_codecs({name: name for name in settings.device.codecs})
    if data:
        from fedpress.client.data import check

        check(data)
    traffic, status = ByteCounter(), Status()
    gate = Availability(settings.limits, lambda: traffic.total, journal.noted("usage"))
    fleet = FleetApi(server, key or _own_key(journal), ca, heartbeat=settings.polling.heartbeat, traffic=traffic)
    runner = Runner(
        fleet,
        journal,
        app,
        node=config,
        polling=settings.polling,
        gate=gate,
        tasks=settings.device.tasks,
        status=status,
    )
    apply(settings.limits)
    gc.freeze()  # what is imported stays, and need not be looked at after each message
    if watch:
        watch(status, traffic)

    def goodbye() -> None:
        _log.info("stops")
        runner.stop()
        runner.leave()

    on_stop(goodbye)
    _log.info("%s runs %s for %s", name, settings.device.app, server)
    if fleet.proxy:
        _log.info("%s is reached through the proxy %s", server, fleet.proxy)
    elif named := named_proxy(tls=ca is not None):
        _log.info("%s is reached directly, not through the proxy %s", server, named)
    runner.run()
    while True:  # the thread that was told to stop ends the process; to take torch down would last seconds
        signal.pause()


def _load(name: str) -> "ClientApp":
    from flwr.clientapp import ClientApp

    app = import_object("app", name)
    if not isinstance(app, ClientApp):
        raise SettingError(f"app must be a flwr ClientApp, got {name!r}, of type {type(app).__name__}")
    return app


def state_folder(name: str) -> Path:
    """Return where a service manager has the state kept, else the user's own place for such things."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "fedpress" / name


def _own_key(journal: Journal) -> ec.EllipticCurvePrivateKey:
    """Return the key of a device without an enrolment: a new one, the first time."""
    path = journal.folder / "key.pem"
    try:
        if not path.exists():
            made = ec.generate_private_key(ec.SECP384R1())
            none = serialization.NoEncryption()
            pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
            replace(path, pem, durable=True, mode=0o600)
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DataError(f"{path} holds no key: remove it, and this device makes a new one") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataError(f"{path} holds no key on an elliptic curve: remove it, and this device makes a new one")
    return key

"""An ASGI application on a separate port, in a thread, with limits on what an unknown client may use."""

import asyncio
import errno
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedpress.common.errors import FedpressError, SettingError

_CONNECTIONS = 512
_HEADERS = 16 << 10  # bytes of a request's headers that are waited for
_SILENCE = 30.0  # seconds in which a connection has to say what it wants
_START = 30.0


class _Bounded(H11Protocol):
    """HTTP that hangs up on too many connections, and on those that do not say what they want."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
            return
        self.loop.call_later(_SILENCE, self._hang_up)

    def _hang_up(self) -> None:
        if getattr(self, "scope", None) is None and not self.transport.is_closing():  # no request has come
            self.transport.abort()


class Listener:
    """Serves `app` on `host`:`port`, any free one if 0, from `start` to `stop`; by TLS with a certificate."""

    def __init__(self, app: ASGIApp, host: str, port: int, certificate: tuple[Path, Path] | None = None) -> None:
        self._socket = _bind(host, port)
        self.port = int(self._socket.getsockname()[1])
        options: dict[str, Any] = {}
        if certificate:
            options = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
        config = uvicorn.Config(
            app,
            http=_Bounded,
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=_HEADERS,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            **options,
        )
        # What strangers send amiss is counted by the application, not logged line by line.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        deadline = time.monotonic() + _START
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise FedpressError(f"nothing can be served on port {self.port}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop, and wait for it."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    found = {str(info[4][0]) for info in _resolve(host, 0)}
    return all(address == "::1" or address.startswith("127.") for address in found)


def _resolve(host: str, port: int) -> list[Any]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    except (OSError, UnicodeError) as error:
        raise SettingError(f"{host!r} is no address of this machine: {error}") from error


def _bind(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = _resolve(host, port)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = "is taken already" if error.errno == errno.EADDRINUSE else f"cannot be listened on: {error.strerror}"
        raise SettingError(f"{host}:{port} {reason}") from error
    return listener

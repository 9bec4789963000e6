"""TLS servers on loopback, with whatever certificate and answers a test wants of them."""

import json
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import fedpress
from fedpress.server.keys import init, issue


@dataclass
class Answers:
    """What a server says."""

    versions: dict[str, str] | None = field(
        default_factory=lambda: {"fedpress": fedpress.__version__, "flwr": version("flwr")}
    )
    ahead: Callable[[], datetime] = lambda: datetime.now(UTC)
    iso: bool = True  # the time in the body too, not in HTTP's header alone
    date: bool = True
    status: int = 400
    cause: str = ""
    body: dict[str, Any] = field(default_factory=lambda: {"code": 2003, "detail": "Heartbeat interval out of bounds"})
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(answers: Answers, keys: Path | None) -> Iterator[int]:
    """Serve on a free port with the certificate in `keys`, or without TLS; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answers.asked.append(self.path)
            moment = answers.ahead()
            told = dict(answers.versions or {})
            if answers.iso:
                told["time"] = moment.isoformat()
            status = 404 if answers.versions is None else 200
            self._say(status, told, {"date": format_datetime(moment, usegmt=True)} if answers.date else {})

        def do_POST(self) -> None:
            answers.asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self._say(answers.status, answers.body, {"fedpress-refused": answers.cause} if answers.cause else {})

        def _say(self, status: int, told: dict[str, Any], headers: dict[str, str]) -> None:
            body = json.dumps(told).encode()
            self.send_response_only(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  a handshake that a client ended
    if keys is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "server.pem", keys / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "keys"
    init(folder, ["localhost", "fed.example.org"])
    return folder


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """Keys of a server, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "keys"))


@pytest.fixture
def enrolment(keys: Path, tmp_path: Path) -> Path:
    issue(keys, "pi-1", tmp_path / "pi-1.enrol")
    return tmp_path / "pi-1.enrol"

"""The gate: all of the server that is reachable from outside.

SuperLink serves its Fleet, Control and Runtime APIs on one port, and whoever reaches Control may start a run, which is
code on the server. So SuperLink listens on loopback, and this proxy lets the names of the Fleet API through and nothing
else; TLS ends here, and a request that is not signed by an enrolled key goes no further.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from fedpress.common.version import VERSION
from fedpress.flower.signal_file import SignalFile
from fedpress.server.deploy.authentication import Admission, Refusals, Refused
from fedpress.settings.deployment import MIN_BODY

PATH, HELLO = "/v1/fleet/", "/v1/fedpress"
FLEET = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run"),
    *("get-fab", "push-object", "pull-object", "confirm-message-received"),
)
OPEN_FLEET = (*FLEET, "register-node", "unregister-node")  # where nodes have no keys they register themselves
MOST_HEADERS = 16 << 10  # bytes
_SMALL = 1 << 16  # bytes of a body that is read before SuperLink hears of it
_IDLE = 5.0  # seconds for which a node is told that there is nothing without SuperLink being asked
_HOLD, _LISTEN = 1.0, 0.02  # seconds for which a question is held, and between two looks at the signal
_BRINGS = ("push-messages", "push-object")
_HANDED = 1 << 16  # bytes of a message without its objects that is kept
_PROTOBUF = "application/protobuf"
# What a node asks for once it has a message; heartbeats come from another thread.
_SHOWS_ARRIVAL = ("get-run", "get-fab", "pull-object", "push-object", "push-messages", "confirm-message-received")
_WAIT = 120.0  # seconds until a link that says nothing is given up
_PASSED_ON = ("content-type", "accept", "user-agent")
CAUSE = "fedpress-refused"  # header that says in a word why a request was refused


@dataclass
class Traffic:
    """The traffic of one node through the proxy."""

    up: int = 0  # bytes of bodies
    down: int = 0
    requests: int = 0
    seen: float = 0.0  # seconds since 1970
    idle: tuple[int, float] = (0, 0.0)  # the signal when SuperLink last had nothing for it, and when that was
    handed: bytes = b""  # the last message that it was handed, until it shows that it has it


@dataclass
class Gate:
    """The ASGI application.

    Parameters
    ----------
    target : str
        Where SuperLink listens, https://127.0.0.1:PORT.
    context : ssl.SSLContext
        By which SuperLink's certificate is verified.
    admission : Admission | None
        Who may pass; None if anyone may.
    largest : int
        Bytes of a body at most.
    sent : SignalFile | None
        Rung when there are new messages for nodes; None if nobody rings it.
    arrived : SignalFile | None
        Rung here when something came from a node.
    """

    target: str
    context: ssl.SSLContext
    admission: Admission | None
    largest: int = MIN_BODY
    sent: SignalFile | None = None
    arrived: SignalFile | None = None
    refusals: Refusals = field(default_factory=Refusals)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    _client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":  # uvicorn is told not to speak anything else
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Refused as refused:
            self.refusals.note(refused, request.client.host if request.client else "")
            response = _say(refused)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
        timeout = httpx.Timeout(_WAIT, connect=5.0)
        self._client = httpx.AsyncClient(verify=self.context, limits=limits, timeout=timeout, trust_env=False)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, request: Request) -> Response:
        if sum(len(name) + len(value) for name, value in request.scope["headers"]) > MOST_HEADERS:
            raise Refused(431, "headers", f"headers have at most {MOST_HEADERS} bytes")
        path = request.scope["path"]
        if path == HELLO and request.method == "GET":
            told = {"fedpress": VERSION, "flwr": version("flwr"), "time": datetime.now(UTC).isoformat()}
            return Response(json.dumps(told), media_type="application/json")
        name = path.removeprefix(PATH)
        if not path.startswith(PATH) or name not in (FLEET if self.admission else OPEN_FLEET):
            raise Refused(404, "path", "there is nothing here")
        if request.method != "POST":
            raise Refused(404, "path", "there is nothing here but by POST")
        node = self.admission.admit(request.headers) if self.admission else self._address(request)
        length = self._length(request)
        traffic = self.traffic.setdefault(node, Traffic())
        traffic.requests += 1
        traffic.seen = time.time()
        if name in _SHOWS_ARRIVAL:
            traffic.handed = b""
        elif name == "pull-messages" and traffic.handed:
            traffic.down += len(traffic.handed)
            return Response(traffic.handed, media_type=_PROTOBUF)
        content: bytes | AsyncIterator[bytes] = self._body(request, traffic)
        if name == "pull-messages" or (length is not None and length <= _SMALL):
            content = b"".join([chunk async for chunk in self._body(request, traffic)])
        last = self.sent.last if self.sent else 0
        if name == "pull-messages" and self.admission and self._idle(last, traffic):
            last = await self._hold(last)
            if self._idle(last, traffic):
                return Response(b"", media_type=_PROTOBUF)
        answer = await self._forward(request, path, content, traffic)
        if name == "pull-messages":
            nothing = 0 if traffic.handed or answer.status_code != 200 else last
            traffic.idle = (nothing, time.monotonic())
        elif name in _BRINGS and self.arrived:
            self.arrived.send()
        return answer

    @staticmethod
    def _idle(last: int, traffic: Traffic) -> bool:
        """Whether SuperLink had nothing for a node a moment ago, and nothing was sent since."""
        nothing, when = traffic.idle
        return last == nothing != 0 and time.monotonic() - when < _IDLE

    async def _hold(self, last: int) -> int:
        """Wait briefly for a signal, so that a node that polls just before work comes gets it; return the last one."""
        until = time.monotonic() + _HOLD
        while self.sent and self.sent.last == last and time.monotonic() < until:
            await asyncio.sleep(_LISTEN)
        return self.sent.last if self.sent else 0

    def _length(self, request: Request) -> int | None:
        """Return how long the body says that it is; raise Refused if that is too long."""
        said = request.headers.get("content-length")
        if said is None:
            return None
        if not said.isdecimal() or int(said) > self.largest:
            raise Refused(413, "body", f"a body has at most {self.largest} bytes, this one says {said[:20]}")
        return int(said)

    async def _forward(
        self, request: Request, path: str, content: bytes | AsyncIterator[bytes], traffic: Traffic
    ) -> Response:
        headers = {k: v for k, v in request.headers.items() if k in _PASSED_ON or k.startswith("flwr-")}
        if not isinstance(content, bytes) and "content-length" in request.headers:
            headers["content-length"] = request.headers["content-length"]
        client = self._client
        if client is None:
            raise Refused(503, "starting", "the server starts: ask again")
        try:
            call = client.build_request("POST", self.target + path, content=content, headers=headers)
            answer = await client.send(call, stream=True)
        except (httpx.TransportError, OSError) as error:
            if isinstance(error.__cause__, Refused):
                raise error.__cause__ from None
            raise Refused(503, "away", "the server restarts: ask again") from None
        passed = {k: v for k, v in answer.headers.items() if k in ("content-type", "content-length")}
        passed |= {k: v for k, v in answer.headers.items() if k.startswith("flwr-")}
        if path == PATH + "pull-messages" and self.admission:  # without keys nobody knows who asks
            # SuperLink hands a message out once: were the answer lost on the way, the round would wait for its timeout.
            whole = b"".join([chunk async for chunk in self._back(answer, traffic)])
            traffic.handed = whole if answer.status_code == 200 and len(whole) <= _HANDED else b""
            return Response(whole, answer.status_code, passed)
        return StreamingResponse(self._back(answer, traffic), answer.status_code, passed)

    async def _body(self, request: Request, traffic: Traffic) -> AsyncIterator[bytes]:
        """Yield the body as it comes, and no more of it than may be."""
        size = 0
        stream = request.stream()
        while True:
            try:
                chunk = await asyncio.wait_for(anext(stream), _WAIT)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Refused(408, "slow", f"nothing of the body came for {_WAIT:.0f} s") from None
            size += len(chunk)
            traffic.up += len(chunk)
            if size > self.largest:
                raise Refused(413, "body", f"a body has at most {self.largest} bytes")
            if chunk:
                yield chunk

    @staticmethod
    async def _back(answer: httpx.Response, traffic: Traffic) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                traffic.down += len(chunk)
                yield chunk
        finally:
            await answer.aclose()

    @staticmethod
    def _address(request: Request) -> str:
        return request.client.host if request.client else "?"


def _say(refused: Refused) -> Response:
    """Return the answer to a request that is refused."""
    headers = {CAUSE: refused.cause}
    if refused.status in (413, 408):
        headers["connection"] = "close"  # what is left of the body is not waited for
    if refused.status == 503:
        headers["retry-after"] = "1"
    return Response(json.dumps({"detail": refused.line}), refused.status, headers, "application/json")

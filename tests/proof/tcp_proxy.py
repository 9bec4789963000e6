"""A TCP proxy between processes on this machine: it counts bytes, and can delay, limit, reset, stall or cut."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from fedpress.common.settings import require

HOST = "127.0.0.1"
_CHUNK = 1 << 14  # bytes per read
_AHEAD = 64  # chunks in flight per direction
_LINGER = struct.pack("ii", 1, 0)  # a socket with this is closed by a RST


@dataclass(frozen=True)
class LineConditions:
    """The conditions of a line, until they are changed."""

    delay: float = 0.0  # seconds of latency, each way
    rate: float = 0.0  # bytes per second each way, of all connections together; 0 for no limit
    cut: bool = False  # refuse new connections, and drop open ones
    reset: int = 0  # if above 0, reset a connection after so many bytes up without a byte down
    stall: int = -1  # if at least 0, stall a connection after so many bytes up without a byte down

    def __post_init__(self) -> None:
        for name in ("delay", "rate", "reset"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))


@dataclass
class LineTraffic:
    """The traffic of a line."""

    connections: int = 0
    up: int = 0  # bytes towards the target
    down: int = 0  # bytes from it
    turns: int = 0  # changes of direction to up: HTTP requests and handshakes
    resets: int = 0
    stalls: int = 0
    refused: int = 0  # connections that the target refused


class Proxy:
    """Listens on a port on loopback and forwards all bytes to `target`, under the conditions of its line.

    It runs in a thread. `line` may be set at any time, and also applies to open connections.

    Parameters
    ----------
    target : tuple[str, int]
        Host and port.
    port : int
        The port to listen on; 0 for any free one.
    """

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self.target = target
        self.traffic = LineTraffic()
        self._line = LineConditions()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._turns = {"up": asyncio.Lock(), "down": asyncio.Lock()}  # held while bytes are sent at a limited rate
        # Bound but not listening, it reserves the port while the line is cut.
        self._holder = _bind(port)
        self.port: int = self._holder.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self._run(self._listen())

    @property
    def address(self) -> str:
        """The address that it listens on, HOST:PORT."""
        return f"{HOST}:{self.port}"

    @property
    def line(self) -> LineConditions:
        """The present conditions of the line."""
        return self._line

    @line.setter
    def line(self, line: LineConditions) -> None:
        self._run(self._set_line(line))

    def play(self, schedule: Sequence[tuple[float, LineConditions]]) -> None:
        """Set the line to each of `schedule` in turn, each after its seconds, in the background."""

        async def go() -> None:
            for seconds, line in schedule:
                await asyncio.sleep(seconds)
                await self._set_line(line)

        self._loop.call_soon_threadsafe(lambda: self._keep(self._loop.create_task(go())))

    def close(self) -> None:
        """Drop every connection and release the port."""

        async def end() -> None:
            await self._set_line(LineConditions(cut=True))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=_bind(self.port))

    async def _set_line(self, line: LineConditions) -> None:
        async with self._changed:
            self._line = line
            self._changed.notify_all()
        if line.cut and self._server is not None:
            self._server.close()
            self._server = None
            for connection in list(self._open):
                connection.drop()
        elif not line.cut and self._server is None:
            await self._listen()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(asyncio.current_task())  # type: ignore[arg-type]
        try:
            target = await asyncio.open_connection(*self.target)
        except OSError:
            self.traffic.refused += 1
            _reset(writer)
            return
        self.traffic.connections += 1
        connection = _Connection((writer, target[1]))
        self._open.add(connection)
        try:
            await asyncio.gather(
                self._pass("up", reader, target[1], connection), self._pass("down", target[0], writer, connection)
            )
        finally:
            self._open.discard(connection)
            connection.drop()

    async def _pass(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: "_Connection"
    ) -> None:
        """Forward bytes from `reader` to `writer` until either ends."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD)
        carrier = self._loop.create_task(self._carry(way, under_way, writer))
        try:
            while data := await reader.read(_CHUNK):
                if way == "up":
                    data = await self._watch(data, writer, connection)
                else:
                    connection.unanswered = 0
                setattr(self.traffic, way, getattr(self.traffic, way) + len(data))
                await under_way.put((self._loop.time() + self._line.delay, data))
            await under_way.put((0.0, b""))
            await carrier
        except OSError:
            connection.drop()
        finally:
            carrier.cancel()

    async def _watch(self, data: bytes, writer: asyncio.StreamWriter, connection: "_Connection") -> bytes:
        """Return `data`, after a stall if one is due; raise ConnectionResetError if a reset is due."""
        if not connection.unanswered:
            self.traffic.turns += 1
        connection.unanswered += len(data)
        if 0 < self._line.reset < connection.unanswered:
            self.traffic.resets += 1
            keep = max(0, len(data) - (connection.unanswered - self._line.reset))
            self.traffic.up += keep
            writer.write(data[:keep])  # bytes below the limit are still forwarded
            raise ConnectionResetError
        if 0 <= self._line.stall < connection.unanswered:
            self.traffic.stalls += 1
            async with self._changed:
                await self._changed.wait_for(lambda: not 0 <= self._line.stall < connection.unanswered)
        return data

    async def _carry(
        self, way: str, under_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await under_way.get()
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            await asyncio.sleep(due - self._loop.time())
            for part in self._parts(data):
                if rate := self._line.rate:
                    async with self._turns[way]:
                        await asyncio.sleep(len(part) / rate)
                writer.write(part)
                await writer.drain()

    def _parts(self, data: bytes) -> list[bytes]:
        """Return `data` in pieces of about a tenth of a second on a line of limited rate."""
        size = max(1, int(self._line.rate / 10)) if self._line.rate else len(data)
        return [data[at : at + size] for at in range(0, len(data), size)]


class _Connection:
    """Both ends of a connection."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.unanswered = 0  # bytes that went up since the last one came down
        self._writers = writers

    def drop(self) -> None:
        """Reset it at both ends."""
        for writer in self._writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    found: Callable[..., Any] | None = writer.get_extra_info("socket")
    with suppress(OSError):
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)  # type: ignore[attr-defined]
    writer.transport.abort()


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, port))
    return bound

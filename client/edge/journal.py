"""A device's state on disk: the message that it works on, the state after it, the reply, and how much of it was sent.

Each file is written whole: to a new name, to the disk, then over the old name, then the folder to the disk. A checksum
tells a file that a broken disk has changed.

**Why kill -9 counts no update twice and loses none.** A message goes through five steps, and the files say which was
the last:

1. *taken*: SuperLink hands a message out once, and the gate before it again until this device asks for its objects.
   `inbox` holds it before that, then with its objects, and only then is the server told that it may forget them. Killed
   before: the message is handed out, or the objects are fetched, again.
2. *worked on*: nothing is written. Killed: the work is done again, from the same message and the same state, so its
   reply has the same frame.
3. *committed*: one file, by one rename, holds the state after the work **and** the reply. There is no moment at which
   one is there and not the other: a state whose residual says "sent" without the frame would lose the update, a reply
   without the state would be sent once more by the next round. If the disk is full the rename does not happen: the old
   state stays, whole, and the server gets an error in the reply's place.
4. *pushed*: the reply goes out from that file, as often as it takes. SuperLink knows a message by the hash of what it
   is and takes the same one once, and the server's exchange lets a nonce be answered once.
5. *done*: `done` names the message. Killed between 4 and 5: the reply is pushed again, and is known already.

What if the reply never counts (the run is over, the round was too late)? The state keeps both residuals, one for either
verdict, and the next message brings the verdict: `client/mod/node_state.py`. Its `turn` has grown with the state, so it
is at least what the server has heard, and nothing is forgotten by mistake.

Left open where there is no gate, as with --insecure on loopback: a message whose way here was cut. The server's timeout
ends such a round.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from flwr.app import RecordDict

from fedpress.common.errors import DataError, FolderInUseError
from fedpress.common.files import locked, replace
from fedpress.common.logs import LOGGER
from fedpress.flower.mail import IncomingMessage, OutgoingReply
from fedpress.protocol.records import from_rows, to_rows

_log = logging.getLogger(LOGGER)
MAGIC = b"fedpress.state.1\n"
_DIGEST = 16  # bytes
_SERIES = 4  # whose states are kept: a device is in one at a time, and may come back to the last
_LENGTH = 8  # bytes of a length, little-endian


class Journal:
    """A device's folder of state; only one process has it at a time.

    Raises
    ------
    FolderInUseError
        If another process has the folder.
    DataError
        If the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken = ""  # the message in the inbox
        self._committed = ""  # the message whose reply stands beside the newest state
        self._lock = ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.enter_context(locked(folder, "client"))
        except OSError as error:
            raise DataError(f"the state folder {folder} cannot be used: {error.strerror}") from error
        except FolderInUseError as error:
            raise FolderInUseError(f"the state folder {error}") from error
        for path in folder.glob("*.part"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.close()

    def load(self, series: int) -> RecordDict:
        """Return the state that a series of runs left; empty without one.

        Raises
        ------
        DataError
            If the file is not what was written: it is set aside, and the next call returns an empty state.
        """
        path = self._state(series)
        with self._guarded(path) as file:
            if file is None:
                return RecordDict()
            header, blobs = _read(file)
            return from_rows(header["state"], lambda name: blobs[int(name)])

    def commit(self, series: int, state: RecordDict, letter: OutgoingReply) -> None:
        """Put the state after the work, and its reply, in place of the old state; raise OSError if the disk will not.

        States of older series go.
        """
        blobs: list[bytes] = []

        def put(data: bytes) -> str:
            blobs.append(data)
            return str(len(blobs) - 1)

        rows = to_rows(state, put)
        count = len(blobs)
        header = {
            "state": rows,
            "letter": [letter.to, letter.run, letter.seconds, list(letter.objects)],
            "blobs": count,
        }
        self._write(self._state(series), header, [*blobs, letter.head, *letter.objects.values()])
        self._committed = letter.to
        states = sorted(self.folder.glob("state-*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in states[_SERIES:]:
            path.unlink(missing_ok=True)

    def letter(self) -> OutgoingReply | None:
        """Return the reply that was committed last, if it may not have reached the server."""
        states = sorted(self.folder.glob("state-*"), key=lambda path: path.stat().st_mtime_ns)
        if not states:
            return None
        with self._guarded(states[-1]) as file:
            if file is None:
                return None
            header, blobs = _read(file)
            to, run, seconds, ids = header["letter"]
            self._committed = to
            if to == self.noted("done").get("letter"):
                return None
            head, *objects = blobs[header["blobs"] :]
            return OutgoingReply(to, run, head, dict(zip(ids, objects, strict=True)), seconds)

    def take(self, work: IncomingMessage) -> None:
        """Keep a message, with as many of its objects as there are; raise OSError if the disk will not."""
        self._taken = work.id
        ids = None if work.objects is None else list(work.objects)
        header = {"id": work.id, "run": work.run, "objects": ids}
        self._write(self.folder / "inbox", header, [work.head, *(work.objects or {}).values()])

    def work(self) -> IncomingMessage | None:
        """Return the message that was taken last, if it has not been answered."""
        with self._guarded(self.folder / "inbox") as file:
            if file is None:
                return None
            header, (head, *objects) = _read(file)
            if header["id"] == self.noted("done").get("message"):
                return None
            self._taken, ids = header["id"], header["objects"]
            return IncomingMessage(
                header["id"],
                header["run"],
                head,
                None if ids is None else dict(zip(ids, objects, strict=True)),
            )

    def drop(self) -> None:
        """Forget the message that was taken."""
        with suppress(OSError):
            (self.folder / "inbox").unlink(missing_ok=True)

    def done(self, id: str) -> None:
        """Note that the message of this id needs nothing more."""
        if id == self._taken:
            self.drop()
        letter = id if id == self._committed else self.noted("done").get("letter", "")
        self.note("done", {"message": id, "letter": letter})  # without it the reply is pushed again: no harm

    def note(self, name: str, values: dict[str, Any]) -> None:
        """Keep a few small values, as far as the disk lets us."""
        with suppress(OSError):
            self._write(self.folder / name, values, [])

    def noted(self, name: str) -> dict[str, Any]:
        """Return what was noted under a name; empty if there is nothing."""
        try:
            with self._guarded(self.folder / name) as file:
                return {} if file is None else _read(file)[0]
        except DataError as error:
            _log.warning("%s", error)
            return {}

    def _state(self, series: int) -> Path:
        return self.folder / f"state-{series}"

    def _write(self, path: Path, header: dict[str, Any], blobs: list[bytes]) -> None:
        replace(
            path, _parts(header, blobs), durable=True, mode=0o600, wait=False
        )  # a full disk is the server's to know

    @contextmanager
    def _guarded(self, path: Path) -> Iterator[BinaryIO | None]:
        """Yield the open file, None without a file; a broken one is set aside."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise _set_aside(path, error.strerror) from error
        with file:
            try:
                yield file
            except (DataError, KeyError, TypeError, ValueError, IndexError) as error:
                raise _set_aside(path, error) from error


def _set_aside(path: Path, reason: object) -> DataError:
    """Rename a broken file; return the error that says so."""
    try:
        path.replace(path.with_name(f"broken-{path.name}"))
    except OSError as error:
        return DataError(f"{path} is not what was written: {reason}; move it away: {error.strerror}")
    return DataError(f"{path} is not what was written, and is set aside: {reason}")


def _parts(header: dict[str, Any], blobs: list[bytes]) -> list[bytes]:
    """Return magic, checksum of all that follows, header, lengths, blobs; none of them is copied."""
    text = json.dumps({**header, "lengths": [len(blob) for blob in blobs]}).encode()
    parts = [len(text).to_bytes(_LENGTH, "little"), text, *blobs]
    digest = blake2b(digest_size=_DIGEST)
    for part in parts:
        digest.update(part)
    return [MAGIC, digest.digest(), *parts]


def _read(file: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    if file.read(len(MAGIC)) != MAGIC:
        raise DataError("it begins otherwise")
    wanted = file.read(_DIGEST)
    size = file.read(_LENGTH)
    digest = blake2b(size, digest_size=_DIGEST)
    whole = os.fstat(file.fileno()).st_size
    text = file.read(min(int.from_bytes(size, "little"), whole))
    digest.update(text)
    header = json.loads(text)
    left = whole - file.tell()
    if sum(header["lengths"]) != left:
        raise DataError(f"it must have {sum(header['lengths'])} more bytes, got {left}")
    blobs = [file.read(length) for length in header["lengths"]]
    for blob in blobs:
        digest.update(blob)
    if digest.digest() != wanted:
        raise DataError("its checksum is wrong")
    return header, blobs

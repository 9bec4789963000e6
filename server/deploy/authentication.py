"""Admission of requests: key, clock and signature are checked before the body is read."""

import base64
import binascii
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from fedpress.common.logs import LOGGER
from fedpress.flower.control_api import EARLIEST, LATEST, PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fedpress.server.deploy.device_registry import Devices

_log = logging.getLogger(LOGGER)
_TOLD = 1000  # keys and addresses that refusals are told apart by; what is beyond is counted together


class Refused(Exception):  # noqa: N818  an answer, not a failure
    """A request that does not get through: HTTP status, cause in a word, and a line for who sent it."""

    def __init__(self, status: int, cause: str, line: str, who: str = "") -> None:
        super().__init__(line)
        self.status = status
        self.cause = cause
        self.line = line
        self.who = who  # whose key it came with, as far as that is known


class _Seen(NamedTuple):
    since: float  # seconds, of a clock that never goes back
    marks: set[int]


class Admission:
    """Checks what flwr's node authentication will check again, for next to nothing.

    flwr signs the moment of a request and no more, so a request could be sent again for five minutes. Signatures are
    random: one that was seen before is a replay, whatever else the request holds.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._window = float(LATEST - EARLIEST)
        self._new = _Seen(time.monotonic(), set())
        self._old: set[int] = set()

    def admit(self, headers: Mapping[str, str]) -> str:
        """Return the name of the device that a request comes from; raise Refused if it does not get through."""
        public_key = headers.get(PUBLIC_KEY, "")
        if not public_key:
            raise Refused(401, "unsigned", "this server needs requests that are signed with an enrolled key")
        known = self._devices.by_key.get(public_key)
        if known is None:
            who = "key " + hashlib.sha256(public_key.encode()).hexdigest()[:12]
            raise Refused(401, "unknown", "this key is not enrolled here", who)
        name = known.device.name
        if cause := known.refused:
            raise Refused(401, cause, f"the key of {name} is {cause}", name)
        moment = headers.get(TIMESTAMP, "")
        _check_clock(moment, name)
        forged = Refused(401, "signature", "the signature is not of this key and moment", name)
        try:
            signature = base64.b64decode(headers.get(SIGNATURE, ""), validate=True)
            first, _ = decode_dss_signature(signature)
        except (ValueError, binascii.Error):
            raise forged from None
        # Not the whole signature: with the sign of its second half turned it would be as good.
        seal = hashlib.blake2b(f"{name} {moment} {first}".encode(), digest_size=8).digest()
        mark = int.from_bytes(seal, "little")
        self._turn()
        if mark in self._new.marks or mark in self._old:
            raise Refused(401, "replay", "this request was made before", name)
        try:
            known.key.verify(signature, moment.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise forged from None
        self._new.marks.add(mark)
        return name

    def _turn(self) -> None:
        """Forget what is too old to be sent again."""
        if time.monotonic() - self._new.since > self._window:
            self._old = self._new.marks
            self._new = _Seen(time.monotonic(), set())


def _check_clock(moment: str, name: str) -> None:
    try:
        signed = datetime.fromisoformat(moment)
        if signed.tzinfo is None or not moment.isascii():
            raise ValueError(moment)
    except ValueError:
        raise Refused(401, "stale", f"{moment[:40]!r} is no moment in time with its zone", name) from None
    now = datetime.now(UTC)
    age = (now - signed).total_seconds()
    if not EARLIEST < age < LATEST:
        way = "behind" if age > 0 else "ahead of"
        line = (
            f"the clock of {name} is {abs(age):.0f} s {way} the server's, {now.isoformat(timespec='seconds')}: set it"
        )
        raise Refused(401, "stale", line, name)


class Refusals:
    """Counts refusals by cause, and logs each once for every key or address."""

    def __init__(self) -> None:
        self.causes: Counter[str] = Counter()
        self._told: Counter[tuple[str, str]] = Counter()

    def note(self, refused: Refused, address: str) -> None:
        """Note one, from `address` if nothing else is known of who sent it."""
        self.causes[refused.cause] += 1
        who = (refused.cause, refused.who or address)
        if who not in self._told and len(self._told) >= _TOLD:
            who = (refused.cause, "others")
        self._told[who] += 1
        if self._told[who] == 1:
            _log.warning("refused: %s: %s, from %s", refused.cause, refused.line, who[1] if refused.who else address)

    def close(self) -> None:
        """Log how many there were of what was logged once."""
        for (cause, who), count in self._told.items():
            if count > 1:
                _log.warning("refused: %s: %s: %d times in all", cause, who, count)

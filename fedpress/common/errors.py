"""The exceptions of fedpress, one tree.

FedpressError
+-- FrameError            bytes from outside that are not a frame we asked for; the only one decoding raises
+-- UpdateError           tensors that cannot be sent: NaN, infinity, another layout
+-- SettingError          a setting that cannot work: the value, and what would be right
|   +-- SpecError         a codec's spec string
+-- DataError             a file of data that is missing, cut short or not what it claims to be
|   +-- PlanError         how a smaller model is made: no such layer, or not with these numbers
|   +-- EnrolmentError    an enrolment that a device may not use: what is wrong with it, and what to do
|       +-- PassphraseError   it is encrypted, and the passphrase is missing or wrong
+-- ServerError           what keeps a device from its server: what it is, and what to do
    +-- ServerUnavailableError  no answer, or not now: worth another attempt
    +-- RefusedError      the device's key is not, or no longer, taken
    +-- RunFinishedError        the run is over, or was never this device's
    +-- VersionError      the other end's Flower is of another version
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FedpressError(Exception):
    """Root of every error that fedpress raises on purpose."""


class FrameError(FedpressError):
    """Bytes from outside are not a valid frame of the codec and layout that were asked for."""


class UpdateError(FedpressError, ValueError):
    """An update cannot be sent: it holds NaN or infinity, or is not of the layout agreed on."""


class SettingError(FedpressError, ValueError):
    """A setting cannot work. The message is one line: the value, and what would be right."""


class SpecError(SettingError):
    """A codec's spec string does not name a codec."""


class DataError(FedpressError):
    """A file of data is missing, cut short, or not what it claims to be."""


class PlanError(DataError):
    """A plan of a smaller model is none, or not one for the model that it was put to. The message is one line."""


class EnrolmentError(DataError):
    """A device may not use its enrolment. The message is one line: what is wrong with it, and what to do."""


class PassphraseError(EnrolmentError):
    """An enrolment's key is encrypted, and the passphrase is missing or wrong."""


class ServerError(FedpressError):
    """Something keeps a device from its server. The message is one line: what it is, and what to do."""


class ServerUnavailableError(ServerError):
    """The server does not answer, or not now: it is worth another attempt."""


class RefusedError(ServerError):
    """The server does not, or no longer, take the device's key."""


class RunFinishedError(ServerError):
    """The run that a message belongs to is over, or was never this device's."""


class VersionError(ServerError):
    """The other end's Flower is of another version."""


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that asks whether a near one of the `known` was meant; empty if none is near."""
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f": did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return one line on a name that is not known: the name, its near misses, else all that there are."""
    names = sorted(known)
    hint = near_misses(name, names) or f": there are: {', '.join(names)}"
    return f"unknown {kind} {name!r}{hint}"

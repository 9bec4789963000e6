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
    """Root of every error that fedpress raises on purpose.

    Examples
    --------
    >>> import fedpress
    >>> try:
    ...     fedpress.codec("topk")
    ... except FedpressError as error:
    ...     print(error)
    topk lacks fraction: it is topk(fraction)
    """


class FrameError(FedpressError):
    """Bytes from outside are not a valid frame of the codec and layout that were asked for.

    Examples
    --------
    >>> import fedpress
    >>> fedpress.codec("fp16").decode(b"", fedpress.Layout(()))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    FrameError: a frame must have ...
    """


class UpdateError(FedpressError, ValueError):
    """An update cannot be sent: it holds NaN or infinity, or is not of the layout agreed on.

    Examples
    --------
    >>> import fedpress, numpy as np
    >>> update = {"x": np.array([np.nan], np.float32)}
    >>> fedpress.codec("fp16").encode(update, {}, np.random.default_rng(0))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    UpdateError: tensor 'x' must be finite, got 1 values that are NaN or infinite
    """


class SettingError(FedpressError, ValueError):
    """A setting cannot work. The message is one line: the value, and what would be right.

    Examples
    --------
    >>> import fedpress
    >>> fedpress.simulate(rounds=-1)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    SettingError: rounds must be at least 1, got -1
    """


class SpecError(SettingError):
    """A codec's spec string does not name a codec.

    Examples
    --------
    >>> import fedpress
    >>> fedpress.codec("topk")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    SpecError: topk lacks fraction: it is topk(fraction)
    """


class DataError(FedpressError):
    """A file of data is missing, cut short, or not what it claims to be.

    Examples
    --------
    >>> from pathlib import Path
    >>> from fedpress.compression.model import Plan
    >>> try:
    ...     Plan.read(Path("missing.json"))
    ... except DataError as error:
    ...     print(error)
    missing.json cannot be read: No such file or directory
    """


class PlanError(DataError):
    """A plan of a smaller model is invalid, or does not fit the model. The message is one line."""


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

"""The exceptions of fedpress, one tree.

FedpressError
+-- FrameError            bytes from outside that are not the requested frame; the only one that decoding raises
+-- UpdateError           tensors that cannot be sent: NaN, infinity, another layout
+-- DivergedError         training diverged: the updates or the model are no longer numbers to work with
+-- SettingError          an invalid setting: the value, and what must hold
|   +-- SpecError         a codec's spec string
+-- DataError             a file of data that is missing, cut short or not what it claims to be
|   +-- PlanError         a plan of a smaller model that is invalid, or does not fit the model
|   +-- EnrolmentError    an enrolment that a device cannot use
|       +-- PassphraseError         its key is encrypted, and the passphrase is missing or wrong
+-- FolderInUseError      a folder that another process uses
+-- ServerError           a server that a device cannot use
    +-- ServerUnavailableError      it does not answer at present: retry later
    +-- RefusedError                it does not accept the device's key
    +-- RunFinishedError            the run has ended, or the device takes no part in it
    +-- VersionError                it has another version of Flower
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FedpressError(Exception):
    """Base of every error that fedpress raises on purpose.

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
    """Bytes from outside are not a valid frame of the expected codec and layout.

    Examples
    --------
    >>> import fedpress
    >>> fedpress.codec("fp16").decode(b"", fedpress.Layout(()))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    FrameError: a frame must have ...
    """


class UpdateError(FedpressError, ValueError):
    """An update cannot be sent: it has NaN or infinity, or not the expected layout.

    Examples
    --------
    >>> import fedpress, numpy as np
    >>> update = {"x": np.array([np.nan], np.float32)}
    >>> fedpress.codec("fp16").encode(update, {}, np.random.default_rng(0))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    UpdateError: tensor 'x' must be finite, got 1 values that are NaN or infinite
    """


class DivergedError(FedpressError):
    """Training diverged: no node's update can be used, or the aggregated model is not finite.

    Examples
    --------
    >>> issubclass(DivergedError, FedpressError)
    True
    """


class SettingError(FedpressError, ValueError):
    """A setting is invalid. The message is one line with the rule and the value.

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
    >>> from fedpress.compression.model.plan import Plan
    >>> try:
    ...     Plan.read(Path("missing.json"))
    ... except DataError as error:
    ...     print(error)
    missing.json cannot be read: No such file or directory
    """


class PlanError(DataError):
    """A plan of a smaller model is invalid, or does not fit the model. The message is one line.

    Examples
    --------
    >>> from fedpress.compression.model.plan import Plan
    >>> Plan.of({})  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    PlanError: a plan must be a JSON object of schema 1
    """


class EnrolmentError(DataError):
    """A device cannot use its enrolment. The message is one line: the fault, and how to correct it.

    Examples
    --------
    >>> issubclass(EnrolmentError, DataError)
    True
    """


class PassphraseError(EnrolmentError):
    """An enrolment's key is encrypted, and the passphrase is missing or wrong.

    Examples
    --------
    >>> issubclass(PassphraseError, EnrolmentError)
    True
    """


class FolderInUseError(FedpressError):
    """A folder is in use by another process, and only one may use it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fedpress.common.files import locked
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
    ...     try:
    ...         with locked(Path(folder), "run"):
    ...             pass
    ...     except FolderInUseError as error:
    ...         print(str(error).replace(folder, "FOLDER"))
    FOLDER is in use by another run: wait until it ends, or name another
    """


class ServerError(FedpressError):
    """A device cannot use its server. The message is one line: the reason, and how to correct it.

    Examples
    --------
    >>> [each.__name__ for each in ServerError.__subclasses__()]
    ['ServerUnavailableError', 'RefusedError', 'RunFinishedError', 'VersionError']
    """


class ServerUnavailableError(ServerError):
    """The server does not answer at present: retry later.

    Examples
    --------
    >>> issubclass(ServerUnavailableError, ServerError)
    True
    """


class RefusedError(ServerError):
    """The server does not accept the device's key, or no longer.

    Examples
    --------
    >>> issubclass(RefusedError, ServerError)
    True
    """


class RunFinishedError(ServerError):
    """The run of a message has ended, or the device takes no part in it.

    Examples
    --------
    >>> issubclass(RunFinishedError, ServerError)
    True
    """


class VersionError(ServerError):
    """The other end has another version of Flower.

    Examples
    --------
    >>> issubclass(VersionError, ServerError)
    True
    """


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message for an unknown name: similar names.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        All names.

    Returns
    -------
    str
        At most three similar names; empty if no name is similar.

    Examples
    --------
    >>> near_misses("cifar", ["cifar10", "digits"])
    ": did you mean 'cifar10'?"
    """
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f": did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown name.

    Parameters
    ----------
    kind : str
        The kind of name, e.g. "codec".
    name : str
        The unknown name.
    known : iterable of str
        All names.

    Returns
    -------
    str
        One line, with similar names if there are any, else with all names.

    Examples
    --------
    >>> unknown("workload", "x", ["cifar10", "digits"])
    "unknown workload 'x': it must be one of cifar10, digits"
    """
    names = sorted(known)
    hint = near_misses(name, names) or f": it must be one of {', '.join(names)}"
    return f"unknown {kind} {name!r}{hint}"

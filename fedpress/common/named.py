"""Objects of other packages, named in settings: `package.module:object`, or by an installed entry point."""

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any

from fedpress.common.errors import FedpressError, SettingError, unknown

GROUP = "fedpress."  # of entry points, before codecs, workloads and strategies


def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of installed packages by name; nothing is imported.

    Parameters
    ----------
    group : str
        "codecs", "workloads" or "strategies".

    Returns
    -------
    dict of str to EntryPoint
        The entry points of the group `fedpress.GROUP`.
    """
    return {point.name: point for point in entry_points(group=GROUP + group)}


def import_object(kind: str, reference: str) -> Any:
    """Return the object that `reference`, "package.module:object", names.

    Only a reference of this process's user, or of an installed entry point, may be imported.

    Parameters
    ----------
    kind : str
        The kind of object, as messages name it: "codec".
    reference : str
        The name.

    Returns
    -------
    object
        The object.

    Raises
    ------
    SettingError
        If there is no such module or object.
    FedpressError
        If the module raises an error.

    Examples
    --------
    >>> import_object("workload", "fractions:Fraction").__name__
    'Fraction'
    """
    module, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in re.split("[.:]", reference)):
        raise SettingError(f"{kind} must be package.module:object, got {reference!r}")
    fault = f"{kind} {reference!r} cannot be imported"
    try:
        found = import_module(module)
    except (Exception, SystemExit) as error:  # the module may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            advice = "install its package, or name its folder in PYTHONPATH"
            raise SettingError(f"{fault}: {error}; {advice}") from error
        raise FedpressError(f"{fault}: {type(error).__name__}: {error}") from error
    try:
        return attrgetter(name)(found) if name else found
    except AttributeError as error:
        raise SettingError(f"{fault}: {error}") from error


def find_object(kind: str, name: str, known: Mapping[str, Any], group: str) -> Any:
    """Return the object that a setting names.

    Parameters
    ----------
    kind : str
        What it is, for messages: "workload".
    name : str
        A name in `known`, an installed entry point of `group`, or "package.module:object".
    known : mapping of str to object
        The objects that come with fedpress; they take precedence.
    group : str
        The group of entry points.

    Returns
    -------
    object
        The object.

    Raises
    ------
    SettingError
        If there is no such object.
    FedpressError
        If its module raises an error.

    Examples
    --------
    >>> find_object("workload", "digits", {"digits": 1}, "workloads")
    1
    """
    if name in known:
        return known[name]
    points = installed(group)
    if name not in points and ":" not in name:
        raise SettingError(f"{unknown(kind, name, {*known, *points})}; one of your own is package.module:object")
    return import_object(kind, points[name].value if name in points else name)

"""Codecs of other packages: registered, imported by a name `package.module:object`, or installed as entry points.

A name in a frame or in a request never causes an import: it must be one that this process's user registered or named,
or an entry point of an installed package.
"""

import dataclasses
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from fedpress.common.errors import FedpressError, SettingError, SpecError, unknown
from fedpress.common.logs import LOGGER
from fedpress.common.named import import_object, installed
from fedpress.compression.codec import Stage
from fedpress.compression.registry import PRESETS, STAGES, WRAPPERS, CodecEntry, Preset
from fedpress.compression.wrappers.base import Wrapper

GROUP = "codecs"  # of entry points
_TABLES = (STAGES, WRAPPERS, PRESETS)

# Each name that was registered or imported -> package.module:object; empty if other processes cannot import it.
_references: dict[str, str] = {}
_entry_points: dict[str, str] = {}  # the name of each entry point that is in a table -> package.module:object
_broken: set[str] = set()  # package.module:object of each entry point that could not be added
_redefined: list[str] = []  # the names of codecs that were registered again with other code
_log = logging.getLogger(LOGGER)


def register(codec: type[Stage] | type[Wrapper] | Preset, *, examples: tuple[str, ...] = ()) -> None:
    """Register a codec: specs name it by its name in lower case, or as `package.module:Name`.

    A class that is defined again, as by a notebook's cell that is run again, replaces the earlier one.

    Parameters
    ----------
    codec : type or function
        A frozen dataclass derived from `Stage` or `Wrapper`, whose fields are its arguments in a spec; or a function
        that returns the spec of a whole codec.
    examples : tuple of str, optional
        Specs in which it is used.

    Raises
    ------
    SettingError
        If it is neither a stage, a wrapper nor a preset, or another codec has the name.

    Examples
    --------
    >>> from fedpress.compression.stages.identity import Identity
    >>> @dataclasses.dataclass(frozen=True)
    ... class Unchanged(Identity):
    ...     pass
    >>> register(Unchanged)
    >>> "unchanged" in codecs()
    True
    >>> del STAGES["unchanged"], _references["unchanged"]
    """
    name = getattr(codec, "__name__", "").lower()
    add_codec(name, codec, examples)
    _references[name] = ""
    if codec.__module__ != "__main__" and "<locals>" not in codec.__qualname__:
        reference = f"{codec.__module__}:{codec.__qualname__}"
        add_codec(reference, codec)
        _references[name] = _references[reference] = reference


def redefinitions() -> int:
    """Return how often a registered codec was replaced by another of the same module and name."""
    return len(_redefined)


def codecs(*, recommended: bool = False) -> tuple[str, ...]:
    """Return the names that a spec can be made of.

    Parameters
    ----------
    recommended : bool
        Whether to leave out those that, as codecs of updates, lose accuracy or take more bytes than others. They stay
        usable; the reference of codecs has the reason for each.

    Returns
    -------
    tuple of str
        Names of wrappers, stages and presets, each once: "powersgd" is a preset where it stands alone, else a stage.
        Those of installed packages are among them, and those that were imported as "package.module:object".

    Examples
    --------
    >>> {"ef", "topk", "stc"} <= set(codecs())
    True
    >>> {"best", "crosspolytope"} <= set(codecs(recommended=True)), "stc" in codecs(recommended=True)
    (True, False)
    """
    points = {name: point.value for name, point in installed(GROUP).items() if name.isidentifier()}
    named = {*points.values(), *(reference for name, reference in _references.items() if name != reference)}
    if recommended:
        named |= {name for table in _TABLES for name, entry in table.items() if entry.instead}
    return tuple(name for name in dict.fromkeys((*WRAPPERS, *STAGES, *PRESETS, *points)) if name not in named)


def import_codec(name: str) -> str:
    """Import a codec that this process's user names; return the name that frames are to carry.

    Parameters
    ----------
    name : str
        A name of `codecs`, or "package.module:object".

    Returns
    -------
    str
        The name itself; for an entry point "package.module:object", which tells who lacks it what to install.

    Raises
    ------
    SpecError
        If it cannot be imported, or is no codec.

    Examples
    --------
    >>> import_codec("topk")
    'topk'
    """
    if not _known(name):
        _add_installed()
    if name in _entry_points:
        return _entry_points[name]
    if not _known(name) and (point := installed(GROUP).get(name)):  # one that could not be added: the import says why
        name = point.value
    if ":" in name and not _known(name):
        try:
            import_codecs({name: name})
        except SettingError as error:
            raise SpecError(str(error)) from error
    return name


def known_codec(name: str) -> str:
    """Return `name`, if it is a codec of fedpress, of this process's user or of an installed package.

    Parameters
    ----------
    name : str
        The name, which may come from outside: no other module is imported because of it.

    Returns
    -------
    str
        The name.

    Raises
    ------
    SpecError
        If there is no such codec. The message says which package is missing.

    Examples
    --------
    >>> known_codec("topk")
    'topk'
    """
    if not _known(name):
        _add_installed()
    if _known(name):
        return name
    module, colon, _ = name.partition(":")
    if not colon:
        raise SpecError(unknown("codec", name, codecs()))
    raise SpecError(
        f"codec {name!r} is not available here: install the package that has {module}, and name the codec, as with "
        "fedpress.register or in a device's setting codecs"
    )


def own_codecs() -> dict[str, str]:
    """Return the codecs that this process's user registered or named.

    Returns
    -------
    dict of str to str
        By the name of each, "package.module:object"; empty if other processes cannot import it.
    """
    return dict(_references)


def codecs_by_name() -> dict[str, Any]:
    """Return the codecs of `own_codecs` themselves, for a process of the same user that cannot import all of them."""
    return {name: table[name].make for name in _references for table in _TABLES if name in table}


def import_codecs(references: Mapping[str, str]) -> None:
    """Import the codecs of `own_codecs` of another process of the same user.

    Parameters
    ----------
    references : mapping of str to str
        What `own_codecs` returned there.

    Raises
    ------
    SettingError
        If one cannot be imported.
    """
    for name, reference in references.items():
        if reference and not _known(name):
            add_codec(name, import_object("codec", reference))
            _references[name] = reference


def _known(name: str) -> bool:
    return any(name in table for table in _TABLES)


def _add_installed() -> None:
    """Add the entry points of installed packages by their names and as `package.module:object`; try each once."""
    for name, point in installed(GROUP).items():
        if _known(point.value) or point.value in _broken:
            continue
        try:
            made = import_object("codec", point.value)
            add_codec(point.value, made)
            if name.isidentifier():
                add_codec(name, made)
                _entry_points[name] = point.value
        except FedpressError as error:
            _broken.add(point.value)
            package = point.dist.name if point.dist else "unknown"
            _log.warning("the entry point %s of the package %s is left out: %s", name, package, error)


def add_codec(name: str, codec: Any, examples: tuple[str, ...] = ()) -> None:
    """Add a codec to those that specs can name; raise SettingError if it is no codec or its name is taken."""
    table = _table_of(codec)
    known = next((each[name].make for each in _TABLES if name in each), codec)
    if known is not codec:
        if (known.__module__, known.__qualname__) != (codec.__module__, codec.__qualname__):
            raise SettingError(f"a codec must have a name of its own, got {name!r}, which is {known.__qualname__}")
        _redefined.append(name)
        for each in _TABLES:
            each.pop(name, None)
    table[name] = CodecEntry(codec, examples)


def _table_of(codec: Any) -> dict[str, CodecEntry[Any]]:
    """Return the table of the codec's kind; raise SettingError if it is no codec."""
    if inspect.isfunction(codec):
        return PRESETS
    kinds = ((Stage, STAGES), (Wrapper, WRAPPERS))
    found = next((table for base, table in kinds if inspect.isclass(codec) and issubclass(codec, base)), None)
    if found is None:
        raise SettingError(
            f"a codec must be a class derived from Stage or Wrapper, or a function that returns a spec, got {codec!r}"
        )
    if inspect.isabstract(codec):
        lacking = ", ".join(sorted(codec.__abstractmethods__))
        raise SettingError(f"a codec must define every method of its interface: {codec.__qualname__} lacks {lacking}")
    if not (dataclasses.is_dataclass(codec) and getattr(codec, "__dataclass_params__").frozen):  # noqa: B009
        raise SettingError(f"a codec must be a frozen dataclass, got {codec.__qualname__}")
    return found

"""Settings: frozen dataclasses whose fields are declared once for TOML, the command line, Flower and the docs.

A field made by `option` has a type, a default, a range and a help text. A `Schema` is the sections of settings that a
program takes: it reads nested tables and flat names, `section.key` or the bare key where that is unambiguous, into the
typed sections, and writes them back as flat names.
"""

import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from functools import cache, cached_property
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fedpress.common.errors import SettingError, near_misses, unknown
from fedpress.common.files import resolved

Value = str | int | float | bool
Arguments = tuple[tuple[str, Value], ...]  # undeclared arguments, name and value
S = TypeVar("S", bound="Settings")

_OPTION = "option"  # key of a field's metadata
KINDS: dict[type, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Option:
    """The declaration of a setting, in addition to its type and its default."""

    help: str  # in plain words, a phrase without a full stop
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # the value must be greater
    below: float | None = None  # the value must be less
    choices: tuple[str, ...] = ()
    changes_result: bool = True  # False: a run has the same result whatever the value
    adjustable: bool = False  # whether a deployed run may be resumed with another value
    flag: str = ""  # name of its option of `fedpress simulate`, if that differs from the key
    path: str | None = None  # what follows this prefix in a value is a path, which is made absolute; None for no path
    open: bool = False  # takes all keys of its section that are not declared

    @property
    def range(self) -> str:
        """The range of values, as in error messages; empty if any value is allowed."""
        if self.choices:
            return f"one of {', '.join(choice or repr(choice) for choice in self.choices)}"
        bounds = (("at least", self.minimum), ("above", self.above), ("at most", self.maximum), ("below", self.below))
        return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)

    def allows(self, value: Any) -> bool:
        """Return whether `value` is in range."""
        if self.choices:
            return value in self.choices
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


def option(default: Any = MISSING, *, help: str, **rules: Any) -> Any:
    """Return a dataclass field for a setting.

    Parameters
    ----------
    default : int, float, bool, str, tuple or None, optional
        The default value; a setting without one must be given.
    help : str
        Description of the setting for the command line and the docs.
    **rules
        The other fields of `Option`: `minimum`, `maximum`, `above`, `below`, `choices`, `changes_result`,
        `adjustable`, `path`.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Example(Settings):
    ...     workers: int = option(0, minimum=0, help="worker processes")
    >>> Example(workers=2)
    Example(workers=2)
    """
    return field(default=default, metadata={_OPTION: Option(help, **rules)})


def table(cls: "type[Settings]") -> Any:
    """Return a dataclass field for the table of settings `cls` inside a section."""
    return field(default_factory=cls)


def free_arguments(help: str) -> Any:
    """Return a dataclass field for all keys of a section that are not declared, a tuple of names and values."""
    return field(default=(), metadata={_OPTION: Option(help, open=True)})


class Settings:
    """Base of settings: frozen dataclasses of options whose values are checked on construction."""

    def __post_init__(self) -> None:
        """Raise SettingError if a value has the wrong type or is out of range, or two settings conflict."""
        kinds = {declared.name: kind for declared, kind in _fields(type(self))}
        for declared, rule in _options(type(self)):
            value = getattr(self, declared.name)
            if value is not None and not rule.open:
                value = _checked(key_of(declared.name), value, kinds[declared.name], rule)
                object.__setattr__(self, declared.name, value)
        self.check()

    def check(self) -> None:
        """Raise SettingError if settings conflict; sections with such rules override this."""


def key_of(name: str) -> str:
    """Return the configuration key of a dataclass field."""
    return name.replace("_", "-")


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Raise SettingError with the `rule` and the `value` unless `holds`."""
    if not holds:
        raise SettingError(f"{key_of(name)} must be {rule}, got {value}")


def is_integer(value: object) -> bool:
    """Return whether `value` is an integer, NumPy's included."""
    return isinstance(value, Integral)


def is_number(value: object) -> bool:
    """Return whether `value` is a real number, NumPy's included."""
    return isinstance(value, Real)


@dataclass(frozen=True)
class Declared:
    """A setting with its key and its declaration."""

    key: str  # in full: section.key
    kind: Any  # its type
    default: Any  # MISSING if it must be given
    option: Option

    @property
    def name(self) -> str:
        """The key without its section."""
        return self.key.rpartition(".")[2]

    @property
    def section(self) -> str:
        """The section, with the table in it if there is one."""
        return self.key.rpartition(".")[0]

    @property
    def kind_name(self) -> str:
        """The type, in words."""
        return _kind_name(self.kind)


class Schema:
    """The sections of settings that a program takes.

    Parameters
    ----------
    sections : mapping
        The class of each section, by the section's name.
    included : mapping, optional
        Names of sections whose settings may also be given in another section, by that section's name.

    Attributes
    ----------
    declared : mapping
        Every setting by its full key, `section.key`.
    """

    def __init__(
        self, sections: Mapping[str, type[Settings]], included: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    ) -> None:
        self.sections = dict(sections)
        self.included = included
        self.declared = {d.key: d for name, cls in sections.items() for d in _walk(cls, f"{name}.")}

    @cached_property
    def tables(self) -> set[str]:
        """The names of sections, and of tables in them: `network`, `network.link`."""
        return {*self.sections, *(declared.section for declared in self.declared.values())}

    @property
    def flags(self) -> dict[str, str]:
        """The keys of settings whose option of `fedpress simulate` has another name, by that name."""
        return {declared.option.flag: key for key, declared in self.declared.items() if declared.option.flag}

    @cached_property
    def open(self) -> set[str]:
        """The names of sections that take arguments which are not declared."""
        return {name for name, cls in self.sections.items() if any(rule.open for _, rule in _options(cls))}

    def find(self, name: str) -> str:
        """Return the full key of the setting `name`, which may be given without its section.

        A table's key is short for its `name`: `link` for `network.link.name`.

        Raises
        ------
        SettingError
            If there is no such setting, or there are several.
        """
        section, _, rest = name.partition(".")
        for key in (name, *(f"{other}.{rest}" for other in self.included.get(section, ()))):
            if key in self.declared:
                return key
        if rest and section in self.open:
            return name
        found = self._candidates(name)
        if len(found) > 1:
            raise SettingError(f"setting {name!r} is ambiguous: it may be {' or '.join(found)}")
        if not found:
            similar = " or ".join(map(repr, self.similar(name)))
            hint = f"did you mean {similar}?" if similar else "`fedpress settings` lists all"
            raise SettingError(f"unknown setting {name!r}: {hint}")
        return found[0]

    def _candidates(self, name: str) -> list[str]:
        """Return the full keys that `name` may stand for."""
        found = [key for key in self.declared if f".{key}".endswith((f".{name}", f".{name}.name"))]
        depth = min((key.count(".") for key in found), default=0)
        return [key for key in found if key.count(".") == depth]

    def shortest(self, key: str) -> str:
        """Return the shortest name of the setting `key`: without its section, unless that is ambiguous."""
        bare = key.rpartition(".")[2]
        return bare if self._candidates(bare) == [key] else key

    def similar(self, name: str) -> list[str]:
        """Return at most three settings, by their full keys, that the unknown `name` may stand for."""
        like = [key for key, declared in self.declared.items() if _resembles(name.rpartition(".")[2], declared)]
        if not like and "." in name:
            like = get_close_matches(name, self.declared, n=3, cutoff=0.65)
        elif not like:
            near = get_close_matches(_plain_key(name), {d.name for d in self.declared.values()}, n=3, cutoff=0.65)
            like = [key for bare in near for key in self._candidates(bare)]
        return like[:3]

    def flatten(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return nested tables, or a mapping with full or bare keys, as a mapping with full keys.

        Raises
        ------
        SettingError
            If there is no such table or setting, or a setting has two values.
        """
        flat: dict[str, Any] = {}
        for key, value in self._flatten(tables, ""):
            if key in flat and flat[key] != value:
                raise SettingError(f"{key} must be given once, got {flat[key]!r} and {value!r}")
            flat[key] = value
        return flat

    def absolute(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings by their full keys with absolute paths: child processes have other working directories."""
        return {key: self._absolute(key, value) for key, value in flat.items()}

    def _absolute(self, key: str, value: Any) -> Any:
        prefix = self.declared[key].option.path if key in self.declared else None
        if prefix is None or not isinstance(value, str) or not value.startswith(prefix) or value == prefix:
            return value
        return prefix + str(resolved(Path(value.removeprefix(prefix))))

    def _flatten(self, tables: Mapping[str, Any], within: str) -> Iterator[tuple[str, Any]]:
        for name, value in tables.items():
            key = within + name
            if not isinstance(value, Mapping):
                yield self.find(key), value
            elif key in self.tables or within.partition(".")[0] in self.open:
                yield from self._flatten(value, f"{key}.")
            else:
                raise SettingError(unknown("table", key, self.tables))

    def read(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sections from a mapping with full keys; undeclared keys are ignored.

        Raises
        ------
        SettingError
            If a setting is missing that has no default, or a value is of the wrong type or out of range.
        """
        return {name: read(cls, flat, f"{name}.", self.shortest) for name, cls in self.sections.items()}

    def write(self, sections: Mapping[str, Settings]) -> dict[str, Value]:
        """Return sections as a flat mapping with full keys for Flower's run config, with lists as JSON text."""
        flat = {key: value for name, section in sections.items() for key, value in values(section, f"{name}.").items()}
        return {key: json.dumps(value) if isinstance(value, list) else value for key, value in flat.items()}


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def read(cls: type[S], flat: Mapping[str, Any], prefix: str = "", name_of: Callable[[str], str] = _last) -> S:
    """Return the settings `cls` from the keys of `flat` that begin with `prefix`; other keys are ignored.

    Errors call a setting `name_of` its full key.

    A list may be given as JSON text, as in Flower's run config, and a list of one item as that item.

    Raises
    ------
    SettingError
        If a setting is missing that has no default, or a value is of the wrong type or out of range.
    """
    given: dict[str, Any] = {}
    for declared, kind in _fields(cls):
        key = prefix + key_of(declared.name)
        if _is_table(kind):
            given[declared.name] = read(kind, flat, f"{key}.", name_of)
        elif declared.metadata[_OPTION].open:
            given[declared.name] = _undeclared(cls, flat, prefix)
        elif key in flat:
            given[declared.name] = _checked(name_of(key), flat[key], kind, declared.metadata[_OPTION])
        elif declared.default is MISSING:
            raise SettingError(f"{name_of(key)} must be given: it has no default")
    return cls(**given)


def values(settings: Settings, prefix: str = "") -> dict[str, Any]:
    """Return `settings` as a flat mapping, with tuples as lists and without settings that are None."""
    flat: dict[str, Any] = {}
    for declared, kind in _fields(type(settings)):
        key, value = prefix + key_of(declared.name), getattr(settings, declared.name)
        if _is_table(kind):
            flat |= values(value, f"{key}.")
        elif declared.metadata[_OPTION].open:
            flat |= {prefix + name: argument for name, argument in value}
        elif value is not None:
            flat[key] = [_plain(item) for item in value] if isinstance(value, tuple) else value
    return flat


def plain(settings: Settings) -> dict[str, Any]:
    """Return `settings` as a table for TOML or JSON: tuples as lists, settings at their defaults left out."""
    return {
        key_of(declared.name): [_plain(item) for item in value] if isinstance(value, tuple) else _plain(value)
        for declared, _ in _fields(type(settings))
        if (value := getattr(settings, declared.name)) != declared.default
    }


def convert(key: str, value: Any, kind: Any) -> Any:
    """Return `value` checked for the setting `key` of type `kind`; only integers are converted, where it is float.

    Raises
    ------
    SettingError
        If it is of another type, or not a finite number.
    """
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is tuple:
        return tuple(_item(key, item, get_args(kind)[0]) for item in _list(key, value))
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise SettingError(f"{key} must be a finite number, got an integer of {len(str(value))} digits") from error
    if type(value) is not kind:
        raise SettingError(f"{key} must be {_kind_name(kind)}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"{key} must be a finite number, got {value}")
    return value


def _checked(key: str, value: Any, kind: Any, rule: Option) -> Any:
    """Return `value` as `convert` does; raise SettingError if it is out of range."""
    value = convert(key, value, kind)
    if rule.allows(value):
        return value
    hint = near_misses(value, rule.choices) if isinstance(value, str) else ""
    shown = repr(value) if isinstance(value, str) else value
    raise SettingError(f"{key} must be {rule.range}, got {shown}{hint}")


def _plain_key(name: str) -> str:
    return name.lower().replace("_", "-")


def _resembles(name: str, declared: Declared) -> bool:
    """Return whether `name` is another way to write a setting: its help's first words, initials, or a part of it."""
    words, key = _plain_key(name).split("-"), declared.name
    described = _plain_key(declared.option.help).split()[: len(words)]
    initials = "".join(word[:1] for word in words)
    if len(words) > 1 and (words == described or initials == key):
        return True
    return _plain_key(name) == key or (len(max(words, key=len)) > 3 and set(words) < set(key.split("-")))


def _list(key: str, value: Any) -> list[Any]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise SettingError(f"{key} must be a list, got {value!r:.200}") from error
    return list(value) if isinstance(value, list | tuple) else [value]


def _item(key: str, value: Any, kind: Any) -> Any:
    if not _is_table(kind):
        return convert(key, value, kind)
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise SettingError(f"{key} must be a list of tables, got {value!r}")
    names = {key_of(declared.name) for declared, _ in _fields(kind)}
    if undeclared := sorted(value.keys() - names):
        raise SettingError(f"{key}: {unknown('setting', undeclared[0], names)}")
    return read(kind, value)


def _undeclared(cls: type, flat: Mapping[str, Any], prefix: str) -> Arguments:
    known = {prefix + key_of(declared.name) for declared, _ in _fields(cls)}
    found = [(key, value) for key, value in flat.items() if key.startswith(prefix) and key not in known]
    for key, value in found:
        if type(value) not in KINDS:
            raise SettingError(f"{key} must be one value, got {value!r}")
    return tuple(sorted((key.removeprefix(prefix), value) for key, value in found))


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, Settings) else value


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _kind_name(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return _kind_name(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return "a list of tables" if _is_table(get_args(kind)[0]) else "a list"
    return KINDS[kind]


def _fields(cls: type) -> tuple[tuple["Field[Any]", Any], ...]:
    """Return a dataclass's fields and their types."""
    return _cached_fields(cls)


@cache
def _cached_fields(cls: type) -> tuple[tuple["Field[Any]", Any], ...]:
    kinds = get_type_hints(cls)
    return tuple((declared, kinds[declared.name]) for declared in fields(cls))


def _options(cls: type) -> Iterator[tuple["Field[Any]", Option]]:
    for declared, _ in _fields(cls):
        if _OPTION in declared.metadata:
            yield declared, declared.metadata[_OPTION]


def _walk(cls: type[Settings], prefix: str) -> Iterator[Declared]:
    for declared, kind in _fields(cls):
        key = prefix + key_of(declared.name)
        if _is_table(kind):
            yield from _walk(kind, f"{key}.")
        elif not declared.metadata[_OPTION].open:
            yield Declared(key, kind, declared.default, declared.metadata[_OPTION])


def toml(value: Any) -> str:
    """Return a value in TOML syntax."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(_plain(item)) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {toml(item)}' for key, item in value.items())}}}"
    return str(value)


def read_pair(text: str, who: str = "a setting") -> tuple[str, Any]:
    """Return the pair of KEY=VALUE: the value parsed as TOML if it is valid, otherwise as text.

    Raises
    ------
    SettingError
        If `text` has no key or no equals sign; the message begins with `who`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingError(f"{who} must be KEY=VALUE, got {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of a TOML file.

    Raises
    ------
    SettingError
        If it cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:  # as UTF-16 has
            raise SettingError(f"{path} must be TOML in UTF-8, got other text or a binary file")
        return tomllib.loads(text)
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} must be TOML in UTF-8: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path} is not TOML: {error}") from error


def read_file(schema: Schema, path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, with full keys.

    Raises
    ------
    SettingError
        If the file cannot be read, is not TOML, or has a table or a setting that `schema` does not have.
    """
    try:
        return schema.flatten(read_toml(path))
    except SettingError as error:
        raise SettingError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

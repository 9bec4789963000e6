"""Frozen dataclasses as Flower ConfigRecords: written and read from their fields, in one place for every message.

A field is a `bytes`, `int`, `float`, `str` or `bool`, or a tuple of one of them, which is a list in the record. Records
come from the network: a field that is missing or of another type raises FrameError with the field's name, and nothing
is converted.
"""

from collections.abc import Mapping
from typing import ClassVar, Self, get_args, get_origin, get_type_hints

from flwr.app import ConfigRecord

from fedpress.common.errors import FrameError


class TypedRecord:
    """Base of frozen dataclasses that are sent, or stored, as one ConfigRecord.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Point(TypedRecord):
    ...     x: int
    ...     y: int
    >>> Point.from_record(Point(1, 2).to_record())
    Point(x=1, y=2)
    """

    _types: ClassVar[Mapping[str, tuple[type, type | None]]]  # of each field in a record, and of a list's items

    def __init_subclass__(cls) -> None:
        hints = {name: hint for name, hint in get_type_hints(cls).items() if get_origin(hint) is not ClassVar}
        cls._types = {
            name: (list, get_args(hint)[0]) if get_origin(hint) is tuple else (hint, None)
            for name, hint in hints.items()
        }

    def to_record(self) -> ConfigRecord:
        """Return the fields as a ConfigRecord.

        Returns
        -------
        ConfigRecord
            The fields by name, tuples as lists.
        """
        values = {name: getattr(self, name) for name in self._types}
        return ConfigRecord(
            {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        )

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """Return the instance that `to_record` wrote.

        Parameters
        ----------
        record : mapping of str to object
            A ConfigRecord, from outside; fields that the class does not have are ignored.

        Returns
        -------
        TypedRecord
            The instance.

        Raises
        ------
        FrameError
            If a field is missing, is not exactly of its type, or has a value that the class refuses.
        """
        return cls(**{name: _read(record, name, kind, item) for name, (kind, item) in cls._types.items()})


def _read(record: Mapping[str, object], name: str, kind: type, item: type | None) -> object:
    """Return a field's value, a tuple for a list; raise FrameError if it is missing or of another type."""
    value = record.get(name)
    if type(value) is not kind or (isinstance(value, list) and any(type(each) is not item for each in value)):
        wanted = f"list of {item.__name__}" if item else kind.__name__
        raise FrameError(f"{name} must be {wanted}, got {type(value).__name__ if name in record else 'nothing'}")
    return tuple(value) if isinstance(value, list) else value

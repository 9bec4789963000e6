"""Folds a message's records into one: each record is an object of Flower's, and each object a request on the network.

A folded message is one ConfigRecord under `RECORD_NAME`, whose field `packed` is fedpress's own fields, and those of
the other ConfigRecords and MetricRecords, as `packing.py` packs them; a frame is a field of its own. A long frame that
is sent to many nodes stays a record by itself, under `FRAMES`, and so does an extension's record with a long payload:
SuperLink then stores it once. ArrayRecords of the app's own stay too.

    folded    names of all records, in their order
    kinds     for each a letter: c a ConfigRecord, m a MetricRecord, f the ArrayRecord of a frame, - one that stays
    N.KEY     the field KEY of the N-th record
    N         the name of the array of the N-th record, a frame, whose bytes are the field N beside `packed`
"""

from collections.abc import Iterable, MutableMapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from fedpress.common.errors import FrameError
from fedpress.protocol.messages import FRAME_STYPE, RECORD_NAME
from fedpress.protocol.packing import pack, unpack

FRAMES = f"{RECORD_NAME}.frames"  # the record of a frame that is sent to many nodes
_PACKED = "packed"
_STAYS = "-"
_INLINE = 1 << 12  # bytes up to which a frame is not sent in a separate request

Content = MutableMapping[str, Any]  # a RecordDict


def fold(content: Content, shared: dict[int, ConfigRecord] | None = None) -> None:
    """Fold `content` in place.

    Parameters
    ----------
    content : Content
        A message's records.
    shared : dict of int to ConfigRecord | None
        Record of each long frame, by the id of the frame's ArrayRecord, so that equal ones are the same object; None to
        fold long frames too.
    """
    fields: dict[str, Any] = {}
    frames: dict[str, bytes] = {}
    names: list[str] = []
    kinds = ""
    for name, record in list(content.items()):
        if name == RECORD_NAME:
            continue
        kind = _kind(record)
        number = str(len(names))
        names.append(name)
        if kind == _STAYS or (kind == "c" and _is_long(record.values())):
            kinds += _STAYS
            continue
        kinds += kind
        del content[name]
        if kind != "f":
            fields |= {f"{number}.{key}": value for key, value in record.items()}
            continue
        ((fields[number], array),) = record.items()
        if shared is not None and len(array.data) > _INLINE:
            content[FRAMES] = shared.setdefault(id(record), ConfigRecord({number: array.data}))
        else:
            frames[number] = array.data
    if kinds.strip(_STAYS):
        packed = pack({**content[RECORD_NAME], **fields, "folded": names, "kinds": kinds})
        content[RECORD_NAME] = ConfigRecord({_PACKED: packed, **frames})


def unfold(content: Content) -> bool:
    """Undo `fold` in place; return whether `content` was folded.

    Raises
    ------
    FrameError
        If the content cannot be that of a folded message.
    """
    sent = content.get(RECORD_NAME) or {}
    if _PACKED not in sent:
        return False
    apart = content.pop(FRAMES, {})
    if not isinstance(sent[_PACKED], bytes) or isinstance(apart, ArrayRecord):
        raise FrameError("a folded message must hold packed fields, and its frames in a ConfigRecord")
    own: dict[str, Any] = unpack(sent[_PACKED])
    names, kinds = own.pop("folded", None), own.pop("kinds", None)
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not named or not isinstance(kinds, str) or len(names) != len(kinds):
        raise FrameError("a folded message must name a kind for each of its records")
    frames = {**sent, **apart}
    fields: list[dict[str, Any]] = [{} for _ in names]
    for key, value in list(own.items()):
        number, dot, field = key.partition(".")
        if number.isdecimal() and int(number) < len(fields):
            fields[int(number)] |= {field: value} if dot else {str(value): frames.get(number)}
            del own[key]
    content[RECORD_NAME] = _record("c", own)
    for name, kind, values in zip(names, kinds, fields, strict=True):
        stays = kind == _STAYS and name != RECORD_NAME
        if (name in content) != stays:
            raise FrameError(f"a folded message must hold {name!r} once")
        content[name] = content.pop(name) if stays else _record(kind, values)  # in the order before folding
    return True


def _kind(record: object) -> str:
    """Return the letter of a record's kind."""
    if isinstance(record, ConfigRecord):
        return "c"
    if isinstance(record, MetricRecord):
        return "m"
    arrays = list(record.values()) if isinstance(record, ArrayRecord) else []
    return "f" if len(arrays) == 1 and arrays[0].stype == FRAME_STYPE else _STAYS


def _is_long(values: Iterable[object]) -> bool:
    return any(isinstance(value, bytes) and len(value) > _INLINE for value in values)


def _record(kind: str, values: dict[str, Any]) -> ConfigRecord | MetricRecord | ArrayRecord:
    if kind in ("c", "m"):
        try:
            return ConfigRecord(values) if kind == "c" else MetricRecord(values)
        except TypeError as error:
            raise FrameError(f"a folded message must hold values that its records can have: {error}") from error
    if len(values) != 1 or kind != "f":
        raise FrameError("a folded message must hold one frame under a name")
    ((key, data),) = values.items()
    if not isinstance(data, bytes):
        raise FrameError(f"a folded message's frame must be bytes, got {type(data).__name__}")
    return ArrayRecord({key: Array("uint8", (len(data),), FRAME_STYPE, data)})

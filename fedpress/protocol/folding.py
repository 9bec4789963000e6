"""A message's records folded into one: each record is an object of Flower's, and each object a request on the wire.

A folded message is one ConfigRecord under `RECORD_NAME`: our own fields, those of the app's ConfigRecords and
MetricRecords, and the frame. A long frame that goes to many nodes stays a record of its own, under `FRAMES`: SuperLink
then keeps it once.

    folded    names of the records that were folded, in their order
    kinds     for each a letter: c a ConfigRecord, m a MetricRecord, f the ArrayRecord of a frame
    N.KEY     the field KEY of the N-th record; N.NAME is the bytes of a frame, NAME that of its array

Records are told apart by what they are called: this room knows no Flower. What the classes are, the callers say.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from fedpress.common.errors import FrameError
from fedpress.protocol.messages import FRAME_STYPE, RECORD_NAME

FRAMES = f"{RECORD_NAME}.frames"  # the record of a frame that many nodes get
_INLINE = 1 << 12  # bytes of a frame that is not worth a request of its own
_KINDS = {"ConfigRecord": "c", "MetricRecord": "m", "ArrayRecord": "f"}

Content = MutableMapping[str, Any]


@dataclass(frozen=True)
class Records:
    """Flower's classes of records."""

    array: Any
    arrays: Any
    config: Any
    metrics: Any

    def fold(self, content: Content, shared: dict[int, Any] | None = None) -> None:
        """Fold `content`, in place. A long frame is kept apart if `shared`, records by the id of theirs, is given."""
        folded: dict[str, Any] = {}
        names: list[str] = []
        kinds = ""
        for name, record in list(content.items()):
            kind = _KINDS[type(record).__name__]
            if name == RECORD_NAME or (kind == "f" and not _is_frame(record)):
                continue
            number = len(names)
            names.append(name)
            kinds += kind
            del content[name]
            if kind != "f":
                folded |= {f"{number}.{key}": value for key, value in record.items()}
                continue
            ((key, array),) = record.items()
            if shared is not None and len(array.data) > _INLINE:
                if id(record) not in shared:
                    shared[id(record)] = self.config({f"{number}.{key}": array.data})
                content[FRAMES] = shared[id(record)]
            else:
                folded[f"{number}.{key}"] = array.data
        if names:
            content[RECORD_NAME] = self.config({**content[RECORD_NAME], **folded, "folded": names, "kinds": kinds})

    def unfold(self, content: Content) -> bool:
        """Make `content` what it was before it was folded, in place; return whether it was.

        Raises
        ------
        FrameError
            If it was not folded so.
        """
        own = dict(content.get(RECORD_NAME) or {})
        if "folded" not in own:
            return False
        names, kinds = own.pop("folded"), own.pop("kinds")
        if not isinstance(names, list) or not isinstance(kinds, str) or len(names) != len(kinds):
            raise FrameError("a folded message names a kind for each of its records")
        fields: list[dict[str, Any]] = [{} for _ in names]
        apart = content.pop(FRAMES, {})
        for key, value in [*own.items(), *apart.items()]:
            number, dot, field = key.partition(".")
            if dot and number.isdecimal() and int(number) < len(fields):
                fields[int(number)][field] = value
                own.pop(key, None)
        content[RECORD_NAME] = self.config(own)
        for name, kind, values in zip(names, kinds, fields, strict=True):
            if name in content:
                raise FrameError(f"a folded message holds {name!r} twice")
            content[name] = self._record(kind, values)
        return True

    def _record(self, kind: str, values: dict[str, Any]) -> Any:
        if kind == "c":
            return self.config(values)
        if kind == "m":
            return self.metrics(values)
        if len(values) != 1 or kind != "f":
            raise FrameError("a folded message holds one frame under a name")
        ((key, data),) = values.items()
        if not isinstance(data, bytes):
            raise FrameError("a folded message's frame is bytes")
        return self.arrays({key: self.array("uint8", (len(data),), FRAME_STYPE, data)})


def _is_frame(record: Any) -> bool:
    arrays = list(record.values())
    return len(arrays) == 1 and arrays[0].stype == FRAME_STYPE

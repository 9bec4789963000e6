"""Candidates for a comparison, and suites of them with workloads, seeds and settings."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError, SpecError, unknown
from fedpress.common.settings import read_toml
from fedpress.protocol.messages import LOSSLESS
from fedpress.settings.codecs import down_codec, up_codec
from fedpress.settings.server import ServerSettings
from fedpress.simulations.settings import simulation_schema

STEPS = ("shrink", "distil")  # commands that make a model from that of a run
_NAME = re.compile(r"\s*([^|()>:]+?)\s*:\s+(.*)")
_SYNTAX = "UP, UP > DOWN or NAME: UP > DOWN"
_UP, _DOWN = "server.up", "server.down"
_STEP = ("strategy.", "training.", "simulation.model")  # settings that float32 has in common with a candidate
_COMPRESSION = "training.subspace"  # which is no part of the step: float32 does without it
_DEFAULTS = {_UP: ServerSettings.up, _DOWN: ServerSettings.down}
_TAKEN = {  # settings that a comparison sets for each of its runs, and what sets them
    "run.seed": "--seeds",
    "run.out": "--out",
    "run.resume": "nothing: finished runs are kept",
    "simulation.workload": "--workload",
    "simulation.engine": "nothing: runs are in process",
    "simulation.workers": "--jobs",
    _UP: "--codecs",
    _DOWN: "--codecs",
}
_FOLDER = Path(__file__).parent  # of the suites that come with fedpress


@dataclass(frozen=True)
class Candidate:
    """A named method: a codec for each direction, its settings, and commands applied to the run's model."""

    name: str
    up: str
    down: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[tuple[str, ...], ...] = ()  # commands of fedpress, each on the folder that the previous one made

    @property
    def config(self) -> dict[str, Any]:
        """The settings of its runs."""
        return {_UP: self.up, _DOWN: self.down, **self.settings}

    @property
    def step(self) -> dict[str, Any]:
        """Its settings of the model, the server's step and the local work."""
        return {key: value for key, value in self.settings.items() if key.startswith(_STEP) and key != _COMPRESSION}

    @property
    def is_float32(self) -> bool:
        """Whether it sends float32 both ways, and has no settings but those of its step."""
        return self.up == self.down == LOSSLESS and self.settings == self.step and not self.after


@dataclass(frozen=True)
class Suite:
    """Candidates, and the workloads, seeds and settings that they are compared on."""

    candidates: tuple[Candidate, ...]
    workloads: tuple[str, ...] = ("digits",)
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of every run
    title: str = ""

    def __post_init__(self) -> None:
        if not self.candidates:
            raise SettingError("candidates must not be empty")
        name, count = Counter(candidate.name for candidate in self.candidates).most_common(1)[0]
        if count > 1:
            raise SettingError(f"names of candidates must differ, got {name!r} twice")


def read_candidate(text: str) -> Candidate:
    """Read `UP`, `UP > DOWN`, or `NAME: UP > DOWN`.

    Without DOWN the downlink has its default codec; `none` alone is float32 both ways.

    Raises
    ------
    SpecError
        If a codec cannot be parsed.
    """
    match = _NAME.fullmatch(text)
    name, specs = match.groups() if match else (text.strip(), text)
    up, arrow, down = (part.strip() for part in specs.partition(">"))
    if not arrow:
        down = LOSSLESS if up == LOSSLESS else ServerSettings.down
    if not up or not down:
        raise SpecError(f"a candidate must be {_SYNTAX}, got {text!r}")
    up_codec(up)
    down_codec(down)
    return Candidate(name, up, down)


def read_candidates(text: str) -> tuple[Candidate, ...]:
    """Read candidates between semicolons, as `read_candidate` reads each."""
    return tuple(read_candidate(part) for part in text.split(";") if part.strip())


def with_float32(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates, with float32 of the same model, server step and local work for each that has its own.

    None is added where float32 does not take part, nor for candidates with apps of their own.
    """
    known = [candidate.step for candidate in candidates if candidate.is_float32]
    found = list(candidates)
    for candidate in candidates if known else ():
        if candidate.step not in known and not candidate.settings.get("simulation.apps"):
            known.append(candidate.step)
            found.append(Candidate(f"float32, step of {candidate.name}", LOSSLESS, LOSSLESS, candidate.step))
    return found


def require_free(keys: Mapping[str, str]) -> None:
    """Raise SettingError if a setting, by its full key with the name it was given by, is one that a comparison sets."""
    for key, name in keys.items():
        if key in _TAKEN:
            raise SettingError(f"{name} must not be among the settings of a comparison: it is set by {_TAKEN[key]}")


def find_suite(name: str) -> Suite:
    """Return the suite `name` of those that come with fedpress; raise SettingError for any other name."""
    names = sorted(path.stem for path in _FOLDER.glob("*.toml"))
    if name not in names:
        raise SettingError(unknown("suite", name, names))
    return read_suite(_FOLDER / f"{name}.toml")


def read_suite(path: Path) -> Suite:
    """Read a suite from a TOML file; docs/how-to/compare.md has the format.

    Raises
    ------
    DataError
        If the file cannot be read.
    SettingError
        If it is not TOML, or holds an invalid value.
    SpecError
        If a codec cannot be parsed.
    """
    table = read_toml(path)
    try:
        settings = simulation_schema().flatten(_pop(table, "settings", dict))
        require_free({key: key for key in settings if key not in _DEFAULTS})  # codecs are defaults of its candidates
        suite = Suite(
            candidates=tuple(_candidate(entry, settings) for entry in _list(table, "candidate", dict)),
            workloads=tuple(_list(table, "workloads", str)) or Suite.workloads,
            seeds=tuple(_list(table, "seeds", int)) or Suite.seeds,
            settings=settings,
            title=_pop(table, "title", str),
        )
        if table:
            known = ("candidate", "workloads", "seeds", "settings", "title")
            raise SettingError(unknown("key", next(iter(table)), known))
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error
    return suite


def _candidate(entry: dict[str, Any], base: Mapping[str, Any]) -> Candidate:
    entry = dict(entry)
    name = _pop(entry, "name", str)
    if not name:
        raise SettingError("a candidate must have a name")
    try:
        after = tuple(tuple(map(str, words)) for words in _list(entry, "after", list))
        for words in after:
            if words[:1] not in [(step,) for step in STEPS]:
                raise SettingError(f"a command in after must begin with {' or '.join(STEPS)}, got {list(words)}")
        settings = simulation_schema().flatten(entry)
        up, down = (str(settings.pop(key, base.get(key, _DEFAULTS[key]))) for key in (_UP, _DOWN))
        up_codec(up)
        down_codec(down)
    except SettingError as error:
        raise SettingError(f"candidate {name!r}: {error}") from error
    return Candidate(name, up, down, settings, after)


def _list(table: dict[str, Any], key: str, kind: type) -> list[Any]:
    items: list[Any] = _pop(table, key, list)
    if not all(type(item) is kind for item in items):
        raise SettingError(f"{key} must be a list whose items are {kind.__name__}, got {items!r}")
    return items


def _pop(table: dict[str, Any], key: str, kind: type) -> Any:
    """Remove `key` from `table` and return its value, an empty one of this kind if it is missing."""
    value = table.pop(key, kind())
    if type(value) is not kind:
        raise SettingError(f"{key} must be of the type {kind.__name__}, got {value!r}")
    return value

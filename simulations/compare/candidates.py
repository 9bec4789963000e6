"""What is compared: candidates, a codec each way and what goes with it, and the suites that ship with fedpress."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedpress.common.errors import DataError, SettingError, SpecError, unknown
from fedpress.common.settings import Value, read_pair
from fedpress.compression import parse
from fedpress.protocol.messages import LOSSLESS
from fedpress.settings.server import ServerSettings

REFERENCE = LOSSLESS  # the candidate that all others are held against: float32 both ways
_NAME = re.compile(r"\s*([^|()>:]+?)\s*:\s+(.*)")
_SYNTAX = "UP, UP > DOWN, NAME: UP > DOWN, any of them with @ KEY=VALUE KEY=VALUE behind it"


@dataclass(frozen=True)
class Candidate:
    """A codec each way, under a name."""

    name: str
    up: str
    down: str
    settings: Mapping[str, Value] = field(default_factory=dict)  # of the run, that belong to the method

    @property
    def config(self) -> dict[str, Value]:
        """The settings of a run."""
        return {"up": self.up, "down": self.down, **self.settings}


def read_candidate(text: str) -> Candidate:
    """Read `UP`, `UP > DOWN`, or `NAME: UP > DOWN`; settings that belong to it follow as `@ KEY=VALUE KEY=VALUE`.

    Without DOWN the model travels as in every other run, by default; with `none` alone, float32 both ways.

    Raises
    ------
    SpecError
        If a codec is none.
    SettingError
        If a setting is not KEY=VALUE.
    """
    match = _NAME.fullmatch(text)
    name, specs = match.groups() if match else (text.strip(), text)
    specs, _, given = specs.partition("@")
    settings = dict(map(read_pair, given.split()))
    up, arrow, down = (part.strip() for part in specs.partition(">"))
    if not arrow:
        down = LOSSLESS if up == LOSSLESS else ServerSettings.down
    if not up or not down:
        raise SpecError(f"a candidate is {_SYNTAX}; got {text!r}")
    parse(up)
    parse(down)
    return Candidate(name, up, down, settings)


def read_candidates(text: str) -> list[Candidate]:
    """Read candidates from a file, one a line, `#` before what is not for us, or from `SPEC;SPEC;...`.

    Raises
    ------
    DataError
        If there is a file of this name that cannot be read.
    SettingError
        If there is no candidate, or two have one name.
    """
    path = Path(text).expanduser()
    if "|" not in text and ";" not in text and path.is_file():
        try:
            parts = [line.split("#", 1)[0] for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
    else:
        parts = text.split(";")
    found = [read_candidate(part) for part in parts if part.strip()]
    if not found:
        raise SettingError(f"codecs names one at least, got {text!r}")
    names = [candidate.name for candidate in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingError(f"a candidate is named once, got {sorted(twice)[0]!r} twice")
    return found


@dataclass(frozen=True)
class Suite:
    """A comparison that is the same for everyone."""

    candidates: tuple[str, ...]
    workloads: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Value] = field(default_factory=dict)
    takes: str = ""  # how long, in words


_MOMENTUM = "strategy.name='FedAvgM' strategy.server-momentum=0.5 strategy.server-learning-rate=1.0"
SUITES: dict[str, Suite] = {
    "quick": Suite(
        ("none", "qsgd(4) | ans", "ef | lowrank(nmse=0.1) | ans"),
        ("digits",),
        (0, 1, 2),
        takes="under two minutes",
    ),
    "standard": Suite(
        (
            "none",
            "fp16 > fp16",
            "uniform(8) | ans",
            "fedpaq(4)",
            "qsgd(4) | ans",
            "terngrad",
            "signsgd",
            "ef | sign | pack",
            "drive",
            "eden(1)",
            "ef | topk(0.01) | uniform(4) | ans",
            "stc(0.01)",
            "dgc(0.01)",
            "powersgd(2)",
            "deepcompression(0.1, 16)",
            "ef | deadzone(nmse=0.1) | ans",
            "fast(nmse=0.1)",
            "best(nmse=0.1)",
            "ef | lowrank(nmse=0.1) | ans",
            f"recipe: ef(0.5) | lowrank(nmse=0.2) | ans > lowrank(nmse=0.3) | ans @ {_MOMENTUM}",
            f"float32, server momentum: none > none @ {_MOMENTUM}",
        ),
        ("watch", "fashion"),
        (0, 1, 2),
        takes="hours on two cores, overnight on slow ones",
    ),
}


def find_suite(name: str) -> Suite:
    """Return the suite `name`; raise SettingError if there is none."""
    if name not in SUITES:
        raise SettingError(unknown("suite", name, SUITES))
    return SUITES[name]

"""A comparison from end to end: plan, check, run, score, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.files import locked, make_folder
from fedpress.common.settings import Value, require, values
from fedpress.settings.judgement import JudgementSettings
from fedpress.settings.network import NetworkSettings
from fedpress.simulations.compare.candidates import Candidate, with_float32
from fedpress.simulations.compare.executor import CellResult, ComparisonProgress, run_cells
from fedpress.simulations.compare.grid import Cell, check, paced, plan, plan_app
from fedpress.simulations.compare.recommendation import advise
from fedpress.simulations.compare.report import Comparison, write
from fedpress.simulations.compare.scores import score
from fedpress.simulations.network.devices import DeviceClass, find_devices
from fedpress.simulations.network.links import Link, find_link


@dataclass(frozen=True)
class ComparisonPlan:
    """The candidates of a comparison, their conditions, and the criteria of the recommendation."""

    candidates: Sequence[Candidate]
    workloads: Sequence[str]
    seeds: Sequence[int]
    settings: Mapping[str, Value] = field(default_factory=dict)  # of every run
    network: NetworkSettings = field(default_factory=NetworkSettings)
    app: Path | None = None  # folder of a Flower app that replaces the workloads
    judgement: JudgementSettings = field(default_factory=JudgementSettings)
    title: str = ""  # of the report

    def __post_init__(self) -> None:
        require(bool(self.seeds), "seeds", "at least one", self.seeds)
        find_link(self.network.link), find_devices(self.network.devices)  # unknown ones are refused before the runs
        for name in ("seeds", "workloads"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise SettingError(f"{name} must differ, got {', '.join(map(str, given))}")

    @property
    def link(self) -> Link:
        """The link between nodes and server."""
        return find_link(self.network.link)

    @property
    def devices(self) -> DeviceClass:
        """The nodes' devices."""
        return find_devices(self.network.devices)


def cells_of(comparison: ComparisonPlan, folder: Path) -> list[Cell]:
    """Return the runs of `comparison`; raise SettingError if one of them is invalid."""
    if comparison.app is not None:
        if comparison.network.deadline or comparison.devices.dropouts:
            raise SettingError("deadlines and dropouts must not be given with app")
        return plan_app(comparison.candidates, comparison.app, comparison.seeds, comparison.settings)
    cells = plan(with_float32(comparison.candidates), comparison.workloads, comparison.seeds, comparison.settings)
    check(cells)
    if not comparison.network.deadline and not comparison.devices.dropouts:
        return cells  # runs do not depend on the link: times on it are computed afterwards
    return paced(cells, folder, values(comparison.network, "network."))


def compare(
    comparison: ComparisonPlan,
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int = 0,
    command: str = "",
    note: Callable[[ComparisonProgress], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the cells that `folder` does not hold yet, write the report, and return the content of results.json.

    Raises FolderInUseError if another process uses the folder.
    """
    make_folder(folder)
    with locked(folder, "comparison") as lock:
        return _report(comparison, run_cells(cells, folder, lock=lock, jobs=jobs, note=note), folder, command)


def _report(comparison: ComparisonPlan, done: Sequence[CellResult], folder: Path, command: str) -> dict[str, Any]:
    judgement, deadline = comparison.judgement, comparison.network.deadline
    scores = score(done, comparison.link, comparison.devices, target=judgement.target, deadline=deadline)
    advice = advise(scores, allowed=judgement.allowed)
    content = Comparison(
        done=done,
        scores=scores,
        advice=advice,
        link=comparison.link,
        devices=comparison.devices,
        deadline=comparison.network.deadline,
        command=command,
        title=comparison.title or Comparison.title,
    )
    return write(content, folder)

"""A comparison from end to end: plan, check, run, score, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.settings import Value, require, values
from fedpress.settings.judgement import JudgementSettings
from fedpress.settings.network import NetworkSettings
from fedpress.simulations.compare.candidates import Candidate
from fedpress.simulations.compare.executor import ComparisonProgress, run_cells
from fedpress.simulations.compare.grid import Cell, check, paced, plan, plan_app
from fedpress.simulations.compare.recommendation import advise
from fedpress.simulations.compare.report import Comparison, write
from fedpress.simulations.compare.scores import score
from fedpress.simulations.network.devices import DeviceClass, find_devices
from fedpress.simulations.network.links import Link, find_link


@dataclass(frozen=True)
class ComparisonPlan:
    """What is to be compared, on what, and by what it is judged."""

    candidates: Sequence[Candidate]
    workloads: Sequence[str]
    seeds: Sequence[int]
    settings: Mapping[str, Value] = field(default_factory=dict)  # of every run
    network: NetworkSettings = field(default_factory=NetworkSettings)
    app: Path | None = None  # folder of a Flower app in place of our workloads
    judgement: JudgementSettings = field(default_factory=JudgementSettings)
    title: str = ""  # of the report

    def __post_init__(self) -> None:
        require(bool(self.seeds), "seeds", "at least one", self.seeds)
        for name in ("seeds", "workloads"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise SettingError(f"{name} differ, got {', '.join(map(str, given))}")

    @property
    def link(self) -> Link:
        """The link between nodes and server."""
        return find_link(self.network.link)

    @property
    def devices(self) -> DeviceClass:
        """The nodes' devices."""
        return find_devices(self.network.devices)


def cells_of(question: ComparisonPlan, folder: Path) -> list[Cell]:
    """Return the runs that `question` takes; raise SettingError if one of them cannot work."""
    if question.app is not None:
        if question.network.deadline or question.devices.dropouts:
            raise SettingError("deadlines and dropouts are for our own workloads, and app is another's")
        return plan_app(question.candidates, question.app, question.seeds, question.settings)
    cells = plan(question.candidates, question.workloads, question.seeds, question.settings)
    check(cells)
    if not question.network.deadline and not question.devices.dropouts:
        return cells  # runs are the same whatever the link: what they would take on it is computed afterwards
    return paced(cells, folder, values(question.network, "network."))


def compare(
    question: ComparisonPlan,
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int = 0,
    command: str = "",
    note: Callable[[ComparisonProgress], None] = lambda _: None,
) -> dict[str, Any]:
    """Run what `folder` does not hold yet, write the report there, and return what its results.json holds."""
    done = run_cells(cells, folder, jobs=jobs, note=note)
    judgement, deadline = question.judgement, question.network.deadline
    scores = score(done, question.link, question.devices, target=judgement.target, deadline=deadline)
    advice = advise(scores, allowed=judgement.allowed)
    made = Comparison(
        done=done,
        scores=scores,
        advice=advice,
        link=question.link,
        devices=question.devices,
        deadline=question.network.deadline,
        command=command,
        title=question.title or Comparison.title,
    )
    return write(made, folder)

"""`fedpress compare`."""

import json as json_module
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpress.cli.options import Debug, SetOption, read_pairs, settings_options
from fedpress.common.errors import SettingError
from fedpress.common.settings import Schema, require
from fedpress.settings import RunSettings
from fedpress.settings.judgement import JudgementSettings

if TYPE_CHECKING:
    from fedpress.simulations.compare.executor import ComparisonProgress


_JUDGEMENT = Schema({"judgement": JudgementSettings})
_OF_APPS = {"seed": "run.seed", "up": "server.up", "down": "server.down"}  # that runs of an app have too


@settings_options(_JUDGEMENT, "target", "allowed", defaults=True)
@settings_options(
    RunSettings.schema(),
    "rounds",
    flags={"link": "network.link.name", "devices": "network.devices.name", "deadline": "network.deadline"},
)
def compare(
    given: Mapping[str, Any],
    suite: Annotated[str | None, typer.Option(help="quick (digits, under two minutes) or standard (hours).")] = None,
    workload: Annotated[
        str | None, typer.Option(help="One or more, separated by commas: digits, fashion, watch...")
    ] = None,
    codecs: Annotated[
        str | None,
        typer.Option(help="A TOML file of candidates, or SPEC;SPEC..., each UP, UP > DOWN, or NAME: UP > DOWN."),
    ] = None,
    app: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of your Flower app, instead of a workload of fedpress; '--set clients=10'.",
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Separated by commas; 0,1,2 if not given.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time; 0 for the number of cores.")] = 0,
    setting: SetOption = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs and the report.")] = Path("comparison"),
    json: Annotated[bool, typer.Option("--json", help="Print the contents of results.json and nothing else.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare codecs on real runs, all else equal, and recommend one.

    Example: `fedpress compare --workload digits --codecs "none;qsgd(4) | ans" --link nb-iot`
    """
    from rich.console import Console

    from fedpress.common.files import make_folder
    from fedpress.common.settings import read
    from fedpress.settings.network import NetworkSettings
    from fedpress.simulations.compare.candidates import find_suite, read_candidates, read_suite, require_free
    from fedpress.simulations.compare.run import ComparisonPlan, cells_of
    from fedpress.simulations.compare.run import compare as run
    from fedpress.simulations.settings import override, simulation_schema

    if app is not None and workload is not None:
        raise SettingError(f"an app stands in place of our workloads, got {app} and {workload}")
    require(jobs >= 0, "jobs", "at least 0", jobs)
    if codecs and codecs.endswith(".toml"):
        if suite is not None:
            raise SettingError(f"a file of candidates replaces a suite, got {codecs} and {suite}")
        chosen = read_suite(Path(codecs).expanduser())
    else:
        chosen = find_suite(suite or "quick")
        chosen = replace(chosen, candidates=read_candidates(codecs), title="") if codecs is not None else chosen
    schema, pairs = simulation_schema(), read_pairs(setting)
    runs = {key: value for key, value in given.items() if key not in _JUDGEMENT.declared}
    if app is None:
        flat = override(chosen.settings, schema.flatten({**pairs, **runs}))
        require_free({schema.find(key): key for key in pairs})
    else:
        flat = runs
        require_free({_OF_APPS[key]: key for key in pairs if key in _OF_APPS})
    network = {key: value for key, value in flat.items() if key.startswith("network.")}
    settings = {key: value for key, value in flat.items() if key not in network}
    if app is not None:  # the app's settings are not those of fedpress
        settings = {**pairs, **{schema.declared[key].name: value for key, value in settings.items()}}
    plan = ComparisonPlan(
        candidates=chosen.candidates,
        workloads=tuple(name.strip() for name in workload.split(",")) if workload else chosen.workloads,
        seeds=_seeds(seeds) if seeds is not None else chosen.seeds,
        settings=settings,
        network=read(NetworkSettings, network, "network."),
        judgement=read(JudgementSettings, given, "judgement."),
        app=app,
        title=chosen.title,
    )
    errors = Console(stderr=True, quiet=json, highlight=False, soft_wrap=True)
    out = out.resolve()  # runs may have another working directory
    cells = cells_of(plan, out)
    make_folder(out)
    errors.print(f"{len(cells)} runs; finished ones are kept in {out}, so it can be stopped and resumed", markup=False)
    command = shlex.join(["fedpress", *sys.argv[1:]])
    with _Progress(errors) as progress:
        result = run(plan, cells, out, jobs=jobs, command=command, note=progress.show)
    if json:
        typer.echo(json_module.dumps(result))
    else:
        _print(result, out)
    if result["failures"]:
        raise typer.Exit(1)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(f"seeds must be whole numbers between commas, got {text!r}") from error


class _Progress:
    """A bar on a terminal, a line for each run elsewhere."""

    def __init__(self, console: Any) -> None:
        from rich import progress

        self._console = console
        self._bar = progress.Progress(
            progress.TextColumn("{task.completed}/{task.total} runs"),
            progress.BarColumn(None),
            progress.TextColumn("{task.fields[line]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, line="")

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, state: "ComparisonProgress") -> None:
        """Show the progress."""
        from fedpress.common.units import duration

        last, left = state.last, duration(state.left) if state.left else "0 s"
        outcome = f"{100 * last.result['final']['accuracy']:.2f} %" if last.result else f"failed: {last.reason}"
        line = f"{last.cell}: {outcome}"
        self._bar.update(self._task, completed=state.done, total=state.cells, line=f"{line}  {left} left")
        if not self._console.is_terminal or not last.result:
            self._console.print(f"{state.done}/{state.cells}  {line}  {left} left", markup=False)


def _print(result: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from fedpress.common.units import amount, duration

    console = Console()
    for advice in result["advice"]:
        rows = [row for row in result["candidates"] if row["workload"] == advice["workload"]]
        table = Table(title=f"{advice['workload']}, on {result['link']['name']}", title_justify="left")
        for name in (
            "candidate",
            f"both to {100 * rows[0]['target']:.2f} %",
            *("up/down/\ntransport", "accuracy, %", "lost", "both", "time to\ntarget"),
        ):
            table.add_column(name, justify="left" if name == "candidate" else "right")
        for row in rows:
            if "final" not in row:
                table.add_row(row["candidate"], "failed")
                continue
            costs = row["to_target"]
            table.add_row(
                row["candidate"],
                amount(costs["both"]) if costs["both"] is not None else "not reached",
                "/".join(f"{100 * share:.0f}" for share in row["shares"].values()),
                f"{100 * row['final']['mean']:.2f} ± {100 * row['final']['spread']:.2f}",
                f"{row['lost']:.2f}",
                f"{row['both_ratio']:.1f}x",
                duration(costs["seconds"]) if costs["seconds"] is not None else "not reached",
            )
        console.print(table)
        if advice["choice"] is None:
            console.print(f"no recommendation: {advice['reason']}", markup=False)
        else:
            console.print(f"recommended: {advice['choice']}: {advice['reason']}. {advice['confidence']}", markup=False)
            console.print(advice["savings"], markup=False)
    console.print(f"{out / 'report.html'}", highlight=False, markup=False, soft_wrap=True)

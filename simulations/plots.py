"""Pictures of a run: accuracy by round, and by bytes."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fedpress.common.units import amount
from fedpress.settings import RunSettings
from fedpress.simulations.run_files import PLOTS

_UP, _DOWN = "#0072B2", "#D55E00"  # Okabe and Ito: distinct for colour-blind readers too


def plot(result: dict[str, Any], folder: Path) -> None:
    """Draw `accuracy_by_round.png` and `accuracy_by_bytes.png` of a result, as result.json holds it, into `folder`."""
    rounds = [0, *(row["round"] for row in result["rounds"])]
    accuracy = [100 * scores["accuracy"] for scores in (result["initial"], *result["rounds"])]
    settings = RunSettings.from_config(result["config"])
    simulation, server = settings.simulation, settings.server
    title = f"{simulation.workload}, {simulation.clients} clients, {server.per_round} a round"

    figure, axes = _figure(title)
    mark = "o" if len(rounds) <= 60 else None
    axes.plot(rounds, accuracy, color=_UP, linewidth=1.8, marker=mark, markersize=3)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(folder / PLOTS[0])

    figure, axes = _figure(title)
    for way, colour, style, codec in (("uplink", _UP, "-", server.up), ("downlink", _DOWN, "--", server.down)):
        total, spent = 0, []
        for row in result["rounds"]:
            total += row[f"{way}_bytes"]
            spent.append(total)
        ratio = result["totals"][f"{way}_ratio"]
        label = f"{way}: {codec}: {amount(total)}, {ratio:.3g} times fewer than float32"
        axes.plot(spent, accuracy[1:], style, color=colour, linewidth=1.8, marker=mark, markersize=3, label=label)
    axes.set_xlabel("bytes sent by then, all clients together")
    axes.set_xscale("log")
    few, many = sorted(axes.get_xlim())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if many < 100 * few else (1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))
    figure.legend(frameon=False, fontsize=8, loc="outside lower left")
    figure.savefig(folder / PLOTS[1])


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes

"""Pictures of a run, or of several: accuracy by round, and by bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import prepare_file
from fedpress.common.units import amount
from fedpress.settings import RunSettings
from fedpress.simulations.figures import save_figure
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
    save_figure(figure, folder / PLOTS[0])

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
    _scale_bytes(axes)
    figure.legend(frameon=False, fontsize=8, loc="outside lower left")
    save_figure(figure, folder / PLOTS[1])


def plot_runs(results: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Draw accuracy by round, and by bytes both ways, of several runs into one image.

    Parameters
    ----------
    results : mapping of str to mapping
        For each run's name its result, as result.json holds it.
    file : Path
        The image; its suffix says the format: png, pdf or svg.

    Raises
    ------
    DataError
        If no run has a finished round.
    SettingError
        If `file` cannot be written, or matplotlib does not know its format.

    Examples
    --------
    >>> plot_runs({}, Path("runs.png"))
    Traceback (most recent call last):
    fedpress.common.errors.DataError: there is no run with a finished round to draw
    """
    drawn = {name: result for name, result in results.items() if result["rounds"]}
    if not drawn:
        raise DataError("there is no run with a finished round to draw")
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    for name, result in drawn.items():
        rows = result["rounds"]
        accuracy = [100 * row["accuracy"] for row in rows]
        spent = np.cumsum([row["uplink_bytes"] + row["downlink_bytes"] for row in rows])
        (line,) = by_round.plot([row["round"] for row in rows], accuracy, linewidth=1.8, label=name)
        by_bytes.plot(spent, accuracy, color=line.get_color(), linewidth=1.8)
    for axes, label in ((by_round, "round"), (by_bytes, "bytes sent by then, both ways, all clients together")):
        axes.set_xlabel(label)
        _plain(axes)
    by_round.set_ylabel("test accuracy, %")
    by_round.xaxis.set_major_locator(MaxNLocator(integer=True))
    _scale_bytes(by_bytes)
    figure.legend(frameon=False, fontsize=8, loc="outside lower left", ncols=4)
    prepare_file(file)
    try:
        save_figure(figure, file)
    except ValueError as error:
        raise SettingError(f"{file} cannot be drawn: {error}") from error


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel("test accuracy, %")
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _scale_bytes(axes: Axes) -> None:
    axes.set_xscale("log")
    few, many = sorted(axes.get_xlim())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if many < 100 * few else (1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))

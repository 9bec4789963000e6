"""The figures of a comparison, as pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fedpress.common.units import amount, duration
from fedpress.simulations.compare.scores import CandidateScore, CellHistory, front

# Okabe and Ito: distinct for colour-blind readers too; with markers and dashes, also in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F6BB3")
_MARKERS, _DASHES = "osD^vPX*", ("-", "--", "-.", ":")
_QUIET = "#8C8C8C"  # of candidates that are not highlighted; visible on white and on black
_TOP = 25  # curves are shown from so many points below the target
_INK = "black"


def draw(scores: Sequence[CandidateScore], *, link: str) -> dict[str, Figure]:
    """Return the figures of one workload's scores by name; `link` is the link's name."""
    ran = [score for score in scores if score.runs]
    if not ran:
        return {}
    styles, workload = styles_of(ran), ran[0].workload
    figures = {
        "accuracy-by-bytes": _pareto(ran, styles),
        "accuracy-by-round": _curves(
            ran, styles, "Accuracy by round", "round", lambda run: list(range(len(run.accuracy)))
        ),
        "accuracy-by-time": _curves(
            ran, styles, f"Accuracy by simulated time, {link}", "simulated time", lambda run: run.seconds
        ),
        "bytes-to-target": _bars(ran, styles),
    }
    return {f"{workload}-{name}": figure for name, figure in figures.items()}


@dataclass(frozen=True)
class Style:
    """How a candidate is drawn."""

    colour: str
    marker: str
    dash: str
    highlighted: bool  # with a label and a distinct colour


def styles_of(scores: Sequence[CandidateScore]) -> dict[str, Style]:
    """Return the style of each candidate in all figures; the Pareto front and float32 are highlighted first."""
    fronts = {score.name for score in front(scores, "both")}
    first = sorted(scores, key=lambda score: (score.name not in fronts, -score.mean("final")))[: len(_COLOURS)]
    highlighted = {score.name for score in (*first, *(score for score in scores if score.candidate.is_float32))}
    styles: dict[str, Style] = {}
    for score in scores:
        at = len([1 for style in styles.values() if style.highlighted])
        if score.name in highlighted:
            style = Style(_COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)], _DASHES[at % len(_DASHES)], True)
        else:
            style = Style(_QUIET, ".", "-", False)
        styles[score.name] = style
    return styles


def _pareto(scores: Sequence[CandidateScore], styles: dict[str, Style]) -> Figure:
    figure, axes = _axes("Accuracy against bytes both ways")
    best = front(scores, "both")
    points = [(score.mean("both"), 100 * score.mean("final")) for score in best]
    ring: dict[str, Any] = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgewidth": 1}
    axes.step(
        *zip(*points, strict=True), where="post", color=_INK, alpha=0.45, linewidth=1, label="Pareto front", **ring
    )
    for score in scores:
        style, x, y = styles[score.name], score.mean("both"), 100 * score.mean("final")
        axes.errorbar(x, y, 100 * score.spread("final"), color=style.colour, elinewidth=0.8, fmt="none")
        label = score.name if style.highlighted else None
        axes.plot(x, y, style.marker, color=style.colour, markersize=7, label=label)
    axes.set_ylabel("test accuracy of the last rounds, %")
    axes.set_xlabel("bytes of all clients together")
    _log(axes, amount)
    _legend(figure)
    return figure


def _curves(
    scores: Sequence[CandidateScore],
    styles: dict[str, Style],
    title: str,
    label: str,
    along: Callable[[CellHistory], Sequence[float]],
) -> Figure:
    figure, axes = _axes(title)
    for score in sorted(scores, key=lambda s: styles[s.name].highlighted):
        style = styles[score.name]
        for run in score.runs:
            first = run is score.runs[0]
            axes.plot(
                along(run),
                [100 * value for value in run.smooth],
                style.dash,
                color=style.colour,
                linewidth=1.7 if style.highlighted else 0.7,
                alpha=(1.0 if first else 0.4) if style.highlighted else 0.5,
                label=score.name if style.highlighted and first else None,
            )
    axes.axhline(100 * scores[0].target, color=_INK, linewidth=0.8, alpha=0.4, linestyle=(0, (1, 3)))
    axes.set_ylim(bottom=max(0.0, 100 * scores[0].target - _TOP))
    axes.set_ylabel("test accuracy, %")
    axes.set_xlabel(label)
    if label == "round":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        _log(axes, duration)
    _legend(figure)
    return figure


def _bars(scores: Sequence[CandidateScore], styles: dict[str, Style]) -> Figure:
    title = f"Bytes both ways until {100 * scores[0].target:.2f} %"
    reached = [score for score in reversed(scores) if score.cost("both") is not None]
    missed = [score for score in scores if score.cost("both") is None]
    rows = [*missed, *reached]
    figure, axes = _axes(title, height=1.6 + 0.26 * len(rows))
    least = min((score.cost("both") or 1.0 for score in reached), default=1.0)
    for at, score in enumerate(rows):
        cost = score.cost("both")
        if cost is None:
            axes.text(least / 2, at, "not reached", va="center", fontsize=8, color=_INK, alpha=0.7)
            continue
        axes.barh(at, cost - least / 2, left=least / 2, height=0.62, color=styles[score.name].colour)
        axes.text(cost * 1.08, at, amount(cost), va="center", fontsize=8, color=_INK)
    axes.set_yticks(range(len(rows)), [score.name for score in rows], fontsize=8)
    axes.set_xlim(least / 2, 4 * max((score.cost("both") or 1.0 for score in reached), default=1.0))
    axes.set_xlabel("bytes of all clients together, both ways")
    _log(axes, amount)
    return figure


def _axes(title: str, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.9, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left", color=_INK)
    axes.grid(alpha=0.2, color=_INK)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(figure: Figure) -> None:
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower left", labelcolor=_INK, ncols=1, handlelength=3)


def _log(axes: Axes, unit: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    few, many = sorted(axes.get_xlim())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if many < 50 * few else (1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: unit(value)))

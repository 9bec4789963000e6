"""The figures of a comparison, each as a PNG and as an SVG in the colours of its page."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
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
_INK = "#010203"  # placeholder for the page's text colour
_SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class FigureSpec:
    """One figure."""

    name: str
    title: str
    figure: Figure
    tooltips: dict[str, str]  # by the id of the mark

    def png(self, path: Path) -> None:
        """Write it as a PNG on white."""
        self.figure.savefig(path, format="png", dpi=150, facecolor="white")

    @property
    def svg(self) -> str:
        """The figure as SVG for embedding in a page: text as text, in the page's colour, marks with tooltips."""
        file = io.StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
        root = ElementTree.fromstring(file.getvalue())  # noqa: S314  matplotlib's own
        for group in root.iter(f"{{{_SVG}}}g"):
            if tooltip := self.tooltips.get(group.get("id", "")):
                title = ElementTree.Element(f"{{{_SVG}}}title")
                title.text = tooltip
                group.insert(0, title)
        for attribute in ("width", "height"):
            del root.attrib[attribute]
        root.set("role", "img")
        root.set("aria-label", self.title)
        text = ElementTree.tostring(root, encoding="unicode").replace(_INK, "currentColor")
        # Matplotlib's own ids would repeat in the figures of a page.
        return re.sub(r' id="(?!fp-|[mpch][0-9a-f]{10})[^"]*"', "", text)


def draw(scores: Sequence[CandidateScore], *, link: str) -> list[FigureSpec]:
    """Return the figures of one workload's scores; `link` is its name."""
    ran = [score for score in scores if score.runs]
    if not ran:
        return []
    styles = _styles(ran)
    return [
        _pareto(ran, styles, "up", "Accuracy against bytes sent by clients"),
        _pareto(ran, styles, "down", "Accuracy against bytes sent to clients"),
        _curves(ran, styles, "by-round", "Accuracy by round", "round", lambda run: list(range(len(run.accuracy)))),
        _curves(
            ran, styles, "by-time", f"Accuracy by simulated time, {link}", "simulated time", lambda run: run.seconds
        ),
        _bars(ran, styles),
    ]


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str
    dash: str
    highlighted: bool  # with a label and a distinct colour


def _styles(scores: Sequence[CandidateScore]) -> dict[str, _Style]:
    """Return the style of each candidate in all figures; those on Pareto fronts are highlighted first."""
    fronts = {score.name for way in ("up", "down") for score in front(scores, way)}
    ranked = sorted(scores, key=lambda s: (s.name not in fronts, -s.mean("final")))
    highlighted = {score.name for score in ranked[: len(_COLOURS)]} | {scores[0].name}
    styles: dict[str, _Style] = {}
    for score in scores:
        at = len([1 for style in styles.values() if style.highlighted])
        if score.name in highlighted:
            style = _Style(_COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)], _DASHES[at % len(_DASHES)], True)
        else:
            style = _Style(_QUIET, ".", "-", False)
        styles[score.name] = style
    return styles


def _pareto(scores: Sequence[CandidateScore], styles: dict[str, _Style], way: str, title: str) -> FigureSpec:
    figure, axes = _axes(title)
    name, tooltips = f"{scores[0].workload}-accuracy-by-{way}", {}
    best = front(scores, way)
    points = [(score.mean(way), 100 * score.mean("final")) for score in best]
    ring: dict[str, Any] = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgewidth": 1}
    axes.step(
        *zip(*points, strict=True), where="post", color=_INK, alpha=0.45, linewidth=1, label="Pareto front", **ring
    )
    for number, score in enumerate(scores):
        style, x, y = styles[score.name], score.mean(way), 100 * score.mean("final")
        mark = f"fp-{name}-{number}"
        bars = axes.errorbar(x, y, 100 * score.spread("final"), color=style.colour, elinewidth=0.8, fmt="none")
        bars[2][0].set_gid(f"{mark}-spread")
        axes.plot(
            x,
            y,
            style.marker,
            color=style.colour,
            markersize=7,
            label=score.name if style.highlighted else None,
            gid=mark,
        )
        on = ", on the Pareto front" if score in best else ""
        tooltips[mark] = f"{score.name}: {y:.2f} % ± {100 * score.spread('final'):.2f}, {amount(x)}{on}"
    axes.set_ylabel("test accuracy of the last rounds, %")
    axes.set_xlabel("bytes of all clients together")
    _log(axes, amount)
    _legend(figure)
    return FigureSpec(name, title, figure, tooltips)


def _curves(
    scores: Sequence[CandidateScore],
    styles: dict[str, _Style],
    what: str,
    title: str,
    label: str,
    along: Callable[[CellHistory], Sequence[float]],
) -> FigureSpec:
    figure, axes = _axes(title)
    name, tooltips = f"{scores[0].workload}-accuracy-{what}", {}
    for number, score in enumerate(sorted(scores, key=lambda s: styles[s.name].highlighted)):
        style = styles[score.name]
        for run in score.runs:
            first = run is score.runs[0]
            gid = f"fp-{name}-{number}-{run.seed}"
            shown = [100 * value for value in run.smooth]
            axes.plot(
                along(run),
                shown,
                style.dash,
                color=style.colour,
                linewidth=1.7 if style.highlighted else 0.7,
                alpha=(1.0 if first else 0.4) if style.highlighted else 0.5,
                label=score.name if style.highlighted and first else None,
                gid=gid,
            )
            end = along(run)[-1]
            reached = duration(end) if what == "by-time" else f"round {end:g}"
            tooltips[gid] = f"{score.name}, seed {run.seed}: {shown[-1]:.2f} % at {reached}"
    axes.axhline(100 * scores[0].target, color=_INK, linewidth=0.8, alpha=0.4, linestyle=(0, (1, 3)))
    axes.set_ylim(bottom=max(0.0, 100 * scores[0].target - _TOP))
    axes.set_ylabel("test accuracy, %")
    axes.set_xlabel(label)
    if what == "by-time":
        _log(axes, duration)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return FigureSpec(name, title, figure, tooltips)


def _bars(scores: Sequence[CandidateScore], styles: dict[str, _Style]) -> FigureSpec:
    title = f"Bytes both ways until {100 * scores[0].target:.2f} %"
    name, tooltips = f"{scores[0].workload}-bytes-to-target", {}
    reached = sorted((s for s in scores if s.cost("both") is not None), key=lambda s: -(s.cost("both") or 0.0))
    missed = [score for score in scores if score.cost("both") is None]
    rows = [*missed, *reached]
    figure, axes = _axes(title, height=1.6 + 0.26 * len(rows))
    least = min((score.cost("both") or 1.0 for score in reached), default=1.0)
    for at, score in enumerate(rows):
        cost, gid = score.cost("both"), f"fp-{name}-{at}"
        if cost is None:
            axes.text(least / 2, at, "not reached", va="center", fontsize=8, color=_INK, alpha=0.7, gid=gid)
            tooltips[gid] = f"{score.name}: not reached"
            continue
        axes.barh(at, cost - least / 2, left=least / 2, height=0.62, color=styles[score.name].colour, gid=gid)
        axes.text(cost * 1.08, at, amount(cost), va="center", fontsize=8, color=_INK)
        tooltips[gid] = f"{score.name}: {amount(cost)}"
    axes.set_yticks(range(len(rows)), [score.name for score in rows], fontsize=8)
    axes.set_xlim(least / 2, 4 * max((score.cost("both") or 1.0 for score in reached), default=1.0))
    axes.set_xlabel("bytes of all clients together, both ways")
    _log(axes, amount)
    return FigureSpec(name, title, figure, tooltips)


def _axes(title: str, height: float = 4.2) -> tuple[Figure, Axes]:
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = {**dict.fromkeys(names, _INK), "font.size": 10}
    with rc_context(settings):
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

"""The progress and the result of a run: a live line on a terminal, plain lines in a pipe."""

import json
from types import TracebackType
from typing import Any, Self

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from fedpress.common.units import amount
from fedpress.settings import RunSettings
from fedpress.settings.extension import spread_line


class Progress:
    """Shows a run's progress on standard error; standard output has only the result."""

    def __init__(self, settings: RunSettings, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._settings = settings
        self._rounds = settings.server.rounds
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(None),
            rich_progress.TextColumn("{task.fields[line]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=self._rounds, line="")
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, result: dict[str, Any]) -> None:
        """Show the progress in `result`, which has the rounds so far."""
        rounds = result["rounds"]
        if self._console.is_terminal:
            # The bar starts a thread, so it is not started before the workers are forked, in the first round.
            self._bar.start()
            last = rounds[-1:] or [{**result["initial"], "round": 0}]
            self._bar.update(
                self._task,
                completed=len(rounds),
                description=f"round {last[0]['round']}/{self._rounds}",
                line=self._line(result),
            )
        for row in rounds[self._shown :]:
            if not self._console.is_terminal:
                self._console.print(
                    f"round {row['round']}/{self._rounds}  {row_line(row, self._settings)}",
                    highlight=False,
                    soft_wrap=True,
                    markup=False,
                )
        self._shown = len(rounds)

    def _line(self, result: dict[str, Any]) -> str:
        rounds = result["rounds"]
        if not rounds:
            return f"accuracy {result['initial'].get('accuracy', 0):.4f}"
        left = (self._rounds - len(rounds)) * sum(row["seconds"] for row in rounds[-10:]) / len(rounds[-10:])
        return f"{row_line(rounds[-1], self._settings, messages=False)}  {left:.0f} s left"


def close(result: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a run."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    totals, final = result["totals"], result["final"]
    settings = RunSettings.from_config(result["config"])
    task = settings.deployment.task if settings.deployed else settings.simulation.workload
    console, apps = Console(), settings.simulation.apps
    table = Table(
        title=f"{task}: {len(result['rounds'])} rounds in {totals['seconds']:.1f} s",
        title_justify="left",
    )
    for name, justify in (
        ("", "left"),
        ("apps" if apps else "codec", "left"),
        ("frames", "right"),
        ("messages", "right"),
        ("float32 / frames", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for way, codec in (("uplink", settings.server.up), ("downlink", settings.server.down)):
        table.add_row(
            way,
            apps or codec,
            amount(totals[f"{way}_bytes"]),
            amount(totals[f"{way}_message_bytes"]),
            f"{totals[f'{way}_ratio']:.1f}",
        )
    console.print(table)
    failures, last = sum(row["failures"] for row in result["rounds"]), result["rounds"][-1] if result["rounds"] else {}
    scores = [f"test {name} {final[name]:.4f}" for name in ("accuracy", "loss") if final.get(name) is not None]
    scores += [f"training loss {last['train_loss']:.4f}"] if last.get("train_loss") is not None else []
    console.print(", ".join(scores + ([f"{failures} failures"] if failures else [])))
    for heading, text in _judged({**last, **final}, settings).items():
        console.print(f"{heading}: {text}", highlight=False, markup=False)
    for way, codec in (("uplink", settings.server.up), ("downlink", settings.server.down)):
        if totals[f"{way}_ratio"] < 1 and codec != "none" and not apps:
            console.print(_larger(way, codec, result), highlight=False, markup=False)
    console.print(f"in {settings.run.out}", highlight=False, markup=False, soft_wrap=True)


def row_line(row: dict[str, Any], settings: RunSettings, *, messages: bool = True) -> str:
    """Return a line with the results of a round: bytes of frames and, after a slash, of `messages`."""
    rate = row["clients"] / row["seconds"] if row["seconds"] else 0.0
    parts = [f"accuracy {row['accuracy']:.4f}"] if "accuracy" in row else []
    parts += [f"training loss {row['train_loss']:.4f}"] if row.get("train_loss") is not None else []
    parts += [f"{heading} {text}" for heading, text in _judged(row, settings).items()]
    for short, way in (("up", "uplink"), ("down", "downlink")):
        carried = f"/{amount(row[f'{way}_message_bytes'])}" if messages else ""
        parts.append(f"{short} {amount(row[f'{way}_bytes'])}{carried}")
    parts.append(f"{rate:.1f} clients/s")
    return "  ".join(parts + ([f"{row['failures']} failed"] if row["failures"] else []))


def _judged(scores: dict[str, Any], settings: RunSettings) -> dict[str, str]:
    """Return what the run's settings ask for: the nodes' accuracies, and what its extensions show."""
    nodes = {"nodes": spread_line(scores["nodes_accuracy"])} if "nodes_accuracy" in scores else {}
    return {**nodes, **settings.highlights(scores)}


def _larger(way: str, codec: str, result: dict[str, Any]) -> str:
    """Return the line that says why the frames of a run are larger than float32."""
    ratio, messages = result["totals"][f"{way}_ratio"], sum(row["clients"] for row in result["rounds"])
    floats = ratio * result["totals"][f"{way}_bytes"] / 4 / max(1, messages)
    return (
        f"{way} frames are {1 / ratio:.2f} times as large as float32: the headers and tables of {codec} take more "
        f"bytes than they save on about {floats:.0f} values a message; fp16 or none suits a model as small as this"
    )

"""Output of `fedpress server`: a live table on a terminal, plain lines in a pipe, or a JSON object per line."""

import json
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedpress.cli.console.progress import row_line
from fedpress.common.units import amount
from fedpress.server.deploy.state import NodeState, State
from fedpress.settings import RunSettings

_ROUNDS = 8  # number of rounds in the table


class Fleet:
    """Shows a server's state on standard error, or as JSON on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._console = Console(stderr=True, quiet=as_json)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._phase = ""
        self._advice = ""
        self._rounds = -1
        self._nodes: dict[str, bool] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._json:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, state: State) -> None:
        """Show `state`, or report how it differs from the one before."""
        if self._console.is_terminal and not self._json:
            self._live.update(_render(state), refresh=True)
            return
        if state.phase != self._phase:
            self._phase = state.phase
            self._report(state.phase, {"event": "phase", "phase": state.phase})
        if state.advice != self._advice:
            self._advice = state.advice
            if state.advice:
                self._report(state.advice, {"event": "advice", "advice": state.advice})
        for node in state.nodes:
            if node.online != self._nodes.get(node.name, False):
                self._report(
                    f"node {node.name} is {'online' if node.online else 'gone'}", {"event": "node", **asdict(node)}
                )
        for name in self._nodes.keys() - {node.name for node in state.nodes}:
            self._report(f"node {name} is shut out", {"event": "node", "name": name, "online": False})
        self._nodes = {node.name: node.online for node in state.nodes}
        rounds = state.result.get("rounds", [])
        for row in rounds if self._rounds < 0 else rounds[self._rounds :]:
            self._report(_round(row, state), {"event": "round", **row})
        self._rounds = len(rounds)

    def _report(self, line: str, event: dict[str, Any]) -> None:
        if self._json:
            typer.echo(json.dumps(event))
        else:
            self._console.print(line, highlight=False, soft_wrap=True)


def _render(state: State) -> Group:
    online = sum(node.online for node in state.nodes)
    head = f"{state.phase}: {online} of {len(state.nodes)} nodes online"
    if online < state.wanted:
        head += f", {state.wanted} wanted"
    if state.refusals:
        head += "; refused: " + ", ".join(f"{cause} {count}" for cause, count in sorted(state.refusals.items()))
    nodes = Table(title_justify="left")
    for name, justify in (
        *(("node", "left"), ("id", "left"), ("online", "left"), ("last seen", "right"), ("holds", "left")),
        *(("up", "right"), ("down", "right"), ("failures", "right")),
    ):
        nodes.add_column(name, justify=justify)  # type: ignore[arg-type]
    for node in state.nodes:
        nodes.add_row(*_cells(node))
    rounds = state.result.get("rounds", [])[-_ROUNDS:]
    advice = [Text(state.advice)] if state.advice else []
    lines = [Text(_round(row, state)) for row in rounds]
    return Group(Text(head), *advice, nodes, *lines)


def _round(row: dict[str, Any], state: State) -> str:
    settings = RunSettings.from_config(state.result["config"])
    return f"round {row['round']}/{state.rounds}  {row_line(row, settings)}"


def _cells(node: NodeState) -> tuple[str, ...]:
    ago = f"{max(0.0, time.time() - node.seen):.0f} s ago" if node.seen else "never"
    return (
        *(node.name, str(node.id)[:6], "yes" if node.online else "no", ago, node.version[:8]),
        *(amount(node.up), amount(node.down), str(node.failures)),
    )

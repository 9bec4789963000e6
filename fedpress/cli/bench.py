"""`fedpress bench`: what things cost, side by side in one run."""

import json as json_module
from typing import Annotated

import typer

bench = typer.Typer(help="Measure, side by side in one run.", no_args_is_help=True)


@bench.callback()
def _group() -> None:
    """Measure, side by side in one run."""


@bench.command()
def engine(
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each run.")] = 6,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each contender, in turn.")] = 3,
    model: Annotated[str, typer.Option(help="The model that is trained on fashion.")] = "cnn",
    ray: Annotated[bool, typer.Option(help="With Flower's Ray runtime among the contenders.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the engines: a bare torch loop, in process with 1 and 2 workers, and Flower's Ray runtime.

    Example: `fedpress bench engine --rounds 6 --repeats 3`
    """
    from rich.console import Console
    from rich.table import Table

    from fedpress.cli.progress import amount
    from fedpress.simulations.bench.engine import bench_engine

    errors = Console(stderr=True, quiet=json, highlight=False)
    result = bench_engine(rounds=rounds, repeats=repeats, ray=ray, model=model, note=errors.print)
    if json:
        typer.echo(json_module.dumps(result))
        return
    titles = {
        "train": f"10 of 100 clients train {result['model']} on fashion",
        "echo": f"10 of 100 clients return {result['echo_floats']:,} float32",
    }
    for kind, title in titles.items():
        table = Table(title=title, title_justify="left")
        for name in ("", "s a round", "start-up, s", "peak memory"):
            table.add_column(name, justify="right" if name else "left")
        for row in result[kind]["contenders"]:
            table.add_row(
                row["name"], f"{row['round_seconds']:.4f}", f"{row['startup_seconds']:.2f}", amount(row["peak_bytes"])
            )
        Console().print(table)
        for name, ratio in result[kind]["ratios"].items():
            typer.echo(f"{name}: {ratio:.4f}")

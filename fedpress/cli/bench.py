"""`fedpress bench`: benchmarks whose candidates are measured in the same run."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from fedpress.cli.options import Debug
from fedpress.common.errors import SettingError

bench = typer.Typer(
    help="Run benchmarks that measure all candidates in the same run.\n\nExample: `fedpress bench engine`",
    no_args_is_help=True,
)


@bench.callback()
def _group() -> None:
    """Run benchmarks that measure all candidates in the same run."""


@bench.command()
def engine(
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each run.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each contender, in turn.")] = 1,
    full: Annotated[
        bool, typer.Option("--full", help="Also measure memory, and one worker; takes many times as long.")
    ] = False,
    model: Annotated[str, typer.Option(help="The model that is trained on fashion.")] = "cnn",
    ray: Annotated[bool, typer.Option(help="Include Flower's Ray runtime.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare engines with two workers: plain torch loops, in process, and Flower's Ray runtime; under a minute.

    Example: `fedpress bench engine --full --rounds 6 --repeats 3`
    """
    from rich.console import Console
    from rich.table import Table

    from fedpress.common.units import amount
    from fedpress.simulations.bench.engine import bench_engine

    errors = Console(stderr=True, quiet=json, highlight=False)
    result = bench_engine(rounds=rounds, repeats=repeats, ray=ray, model=model, full=full, note=errors.print)
    if json:
        typer.echo(json_module.dumps(result))
        return
    titles = {
        "train": f"10 of 100 clients train {result['model']} on fashion",
        "echo": f"10 of 100 clients return {result['echo_floats']:,} float32",
    }
    for kind, title in titles.items():
        table = Table(title=title, title_justify="left")
        for name in ("", "s a round", "start-up, s", *(["peak memory"] if full else [])):
            table.add_column(name, justify="right" if name else "left")
        for row in result[kind]["contenders"]:
            memory = [] if row["peak_bytes"] is None else [amount(row["peak_bytes"])]
            table.add_row(row["name"], f"{row['round_seconds']:.4f}", f"{row['startup_seconds']:.2f}", *memory)
        Console().print(table)
        for name, ratio in result[kind]["ratios"].items():
            typer.echo(f"{name}: {ratio:.4f}")


@bench.command()
def codec(
    updates: Annotated[Path, typer.Option(exists=True, file_okay=False, help="A folder of recorded updates.")] = Path(
        "updates"
    ),
    only: Annotated[str, typer.Option(help="Names of updates in it, separated by commas; all if not given.")] = "",
    codecs: Annotated[
        str, typer.Option(help="Specs, separated by semicolons; all presets and more if not given.")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each codec; the fastest is reported.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare codecs on recorded updates: bytes, error, speed, memory.

    Example: `fedpress bench codec --updates updates --only cnn --codecs "best(nmse=0.1); fast(nmse=0.1)"`
    """
    from rich.console import Console

    from fedpress.cli.console.codec_table import print_codecs
    from fedpress.compression import parse_trusted
    from fedpress.simulations.bench.codec import bench_codec, default_specs
    from fedpress.simulations.bench.recorded_updates import recorded

    specs = [str(parse_trusted(spec)) for spec in codecs.split(";") if spec.strip()] or default_specs()
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    found = [row for row in recorded(updates) if not wanted or row[0] in wanted]
    missing = set(wanted) - {row[0] for row in found}
    if missing:
        raise SettingError(f"{updates} has no recorded update {', '.join(sorted(missing))}")
    errors = Console(stderr=True, quiet=json, highlight=False)
    result = bench_codec(found, specs, repeats=repeats, note=errors.print)
    if json:
        typer.echo(json_module.dumps(result))
        return
    print_codecs(result, Console())


@bench.command()
def edge(
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each run.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each contender, in turn.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare a device's client with Flower's SuperNode: memory, time of a round, bytes on the wire; TLS on loopback.

    Example: `fedpress bench edge --repeats 3`
    """
    from rich.console import Console
    from rich.table import Table

    from fedpress.common.units import amount
    from fedpress.simulations.bench.edge import bench_edge

    errors = Console(stderr=True, quiet=json, highlight=False)
    result = bench_edge(rounds=rounds, repeats=repeats, note=errors.print)
    if json:
        typer.echo(json_module.dumps(result))
        return
    table = Table(title=f"{result['nodes']} clients that return what they received, over TLS", title_justify="left")
    for name in ("", "s a round", "requests a round", "idle, RSS", "idle, PSS", "processes"):
        table.add_column(name, justify="right" if name else "left")
    alone = result["torch"]
    table.add_row("import torch", "", "", amount(alone["rss"]), amount(alone["pss"]), str(alone["processes"]))
    for name, row in result["contenders"].items():
        idle = row["idle"]
        cells = (f"{row['seconds']:.3f}", f"{row['requests']:.1f}", amount(idle["rss"]), amount(idle["pss"]))
        table.add_row(name, *cells, str(idle["processes"]))
    Console().print(table)
    trained = result["training"]
    typer.echo(f"training, peak: ours {amount(trained['ours'])}, bare {amount(trained['bare'])}")
    for name, ratio in result["ratios"].items():
        typer.echo(f"{name}: {ratio:.4f}")


@bench.command()
def record(
    names: Annotated[list[str] | None, typer.Argument(help="Names of recordings; all if not given.")] = None,
    out: Annotated[Path, typer.Option(help="The output folder.")] = Path("updates"),
    _debug: Debug = False,
) -> None:
    """Record real updates for `bench codec`: those of one client's training.

    Example: `fedpress bench record cnn mcmahan-10 --out updates`
    """
    from rich.console import Console

    from fedpress.simulations.bench.recorded_updates import RECORDINGS, record

    errors = Console(stderr=True, highlight=False)
    record(tuple(names or RECORDINGS), out, errors.print)

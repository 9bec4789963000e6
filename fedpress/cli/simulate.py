"""`fedpress simulate`."""

from pathlib import Path
from typing import Annotated

import typer

_EXAMPLE = """
Train one model on many virtual clients, on real data, with compressed updates.

Example: `fedpress simulate --workload fashion --up "ef | topk(0.01) | uniform(4) | ans" --rounds 20 --out runs/first`
"""


def simulate(  # noqa: D103  the help text is its docstring
    workload: Annotated[
        str | None, typer.Option(help="digits, fashion, watch, speeches, or package.module:object.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="One of the workload's models.")] = None,
    up: Annotated[
        str | None, typer.Option(help="Codec of the clients' updates, e.g. 'ef | topk(0.01) | uniform(4) | ans'.")
    ] = None,
    down: Annotated[
        str | None, typer.Option(help="Codec of the model's deltas, e.g. 'deadzone(nmse=0.05) | ans'.")
    ] = None,
    clients: Annotated[int | None, typer.Option(help="Virtual clients.")] = None,
    per_round: Annotated[int | None, typer.Option(help="Clients that train in a round.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    partition: Annotated[str | None, typer.Option(help="iid, dirichlet, shards or natural.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Dirichlet's alpha; implies that partition.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Any of flwr's strategies.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    engine: Annotated[str | None, typer.Option(help="inprocess or ray.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; 0 for as many as cores.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of the workload's files.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch the workload's data if it is not here.")] = False,
    out: Annotated[str | None, typer.Option(help="The run's folder; a new one under runs/ if not given.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings; options win over it.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, KEY=VALUE: 'lr=0.05', 'strategy.eta=0.1'.")
    ] = None,
    distil: Annotated[
        bool, typer.Option("--distil", help="Let the round's models teach their average, on data that no client has.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its last whole round.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a run in the folder.")] = False,
    draw_partition: Annotated[
        bool, typer.Option("--draw-partition", help="Draw who has what into the run's folder.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Flower's log and tracebacks.")] = False,
) -> None:
    named = {
        "workload": workload,
        "model": model,
        "up": up,
        "down": down,
        "clients": clients,
        "per-round": per_round,
        "rounds": rounds,
        "partition": partition,
        "alpha": alpha,
        "strategy": strategy,
        "seed": seed,
        "engine": engine,
        "workers": workers,
        "device": device,
        "data": data,
        "fetch": fetch or None,
        "distil": distil or None,
        "resume": resume or None,
        "out": out,
    }
    # Only now: what follows imports torch, which --help can do without.
    from fedpress.cli.console.progress import Progress, close
    from fedpress.common.settings import read_pair
    from fedpress.simulations.run import run, settings

    pairs = dict(read_pair(text, "--set takes ") for text in setting or [])
    given = {**pairs, **{key: value for key, value in named.items() if value is not None}}
    chosen = settings(given, config)
    with Progress(chosen, quiet=json) as progress:
        result = run(chosen, force=force, watch=progress.show, debug=debug, picture=draw_partition)
    close(result, as_json=json)


simulate.__doc__ = _EXAMPLE

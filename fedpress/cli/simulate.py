"""`fedpress simulate`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fedpress.cli.options import Config, SetOption, read_pairs, settings_options
from fedpress.settings import RunSettings

_SCHEMA = RunSettings.schema()
_COMMON = (
    *("workload", "model", "up", "down", "clients", "per-round", "rounds", "alpha", "seed"),
    *("engine", "workers", "device", "out"),
)


@settings_options(_SCHEMA, *_COMMON, flags={**_SCHEMA.flags, "resume": "run.resume"})
@settings_options(_SCHEMA, "partition", "data", "fetch", panel="Data")
def simulate(
    given: Mapping[str, Any],
    config: Config = None,
    setting: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a run in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    draw_partition: Annotated[
        bool,
        typer.Option(
            "--draw-partition",
            help="Plot the distribution of the data over the clients into the folder.",
            rich_help_panel="Data",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Flower's log and tracebacks.")] = False,
) -> None:
    """Train one model on many virtual clients, on real data, with compressed updates.

    Example: `fedpress simulate --workload fashion --up "qsgd(4) | ans" --rounds 20 --out runs/first`
    """
    # Imported here because torch is slow to import, and --help does not need it.
    from fedpress.cli.console.progress import Progress, close
    from fedpress.simulations.run import run, settings_of
    from fedpress.simulations.settings import check_partition, simulation_schema

    chosen = simulation_schema().flatten({**read_pairs(setting), **given})
    settings = settings_of(chosen, config)
    check_partition(settings, chosen)
    with Progress(settings, quiet=json) as progress:
        result = run(settings, force=force, watch=progress.show, debug=debug, picture=draw_partition)
    close(result, as_json=json)

"""One run of `fedpress simulate`: from a configuration to a folder with its result."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from fedpress.common.checked_files import read_json
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import locked, make_folder, resolved
from fedpress.common.logs import log_to_file
from fedpress.common.settings import read_file
from fedpress.server.run.configuration import continue_run, has_run, save_config
from fedpress.server.run.recorder import CHECKPOINT, RESULT, TRAFFIC
from fedpress.settings import RunSettings
from fedpress.simulations.engine import EngineRun, find_engine
from fedpress.simulations.network.deadline import DeadlineFilter
from fedpress.simulations.plots import plot
from fedpress.simulations.preflight import check
from fedpress.simulations.run_files import LOG, PARTITION, check_names, clear, holds
from fedpress.simulations.settings import override, resolve, simulation_schema
from fedpress.simulations.workloads import task
from fedpress.simulations.workloads.partitions import draw

CLIENTS = "clients"  # in the folder of checkpoints
Watch = Callable[[dict[str, Any]], None]
_POLL = 0.1  # seconds between two reads of the result


def run(
    settings: RunSettings,
    *,
    force: bool = False,
    watch: Watch | None = None,
    debug: bool = False,
    picture: bool = False,
) -> dict[str, Any]:
    """Run the federation that `settings` describe; return the content of its result.json.

    `watch` is called after every round with the result so far, on any engine. With `debug` Flower's log
    goes to the terminal, else into the run's folder. With `picture` the partition is drawn there.

    Raises
    ------
    SettingError
        If the folder holds a run already and `force` is not given, the partition leaves a client without data, or
        settings conflict; then no folder is made.
    DataError
        If the workload's data is missing or invalid.
    FolderInUseError
        If another process uses the folder.
    KeyboardInterrupt
        At Ctrl-C: the folder then holds the result of the rounds done.
    """
    work = task(settings)  # loaded before anything is written, and before workers are forked, which share it
    check(settings, work)
    folder = _make_folder(settings)
    with locked(folder, "run"):
        _empty(folder, settings, force)
        if picture:
            draw(work.parts, work.data.labels, list(work.data.names), folder / PARTITION)
        settings = settings.change("run", out=str(folder))
        save_config(folder, settings)
        with nullcontext() if debug else log_to_file(folder / LOG, mode="a" if settings.run.resume else "w"):
            find_engine(settings.simulation.engine).run(_engine_run(settings, folder, watch))
        result = read_json(folder / RESULT)
        plot(result, folder)
        return result


def settings_of(given: Mapping[str, Any], file: Path | None = None) -> RunSettings:
    """Return the settings of a new run, or with `resume` those of the run that its folder holds.

    Raises
    ------
    SettingError
        As `resolve` does; if a given setting differs from the run's; and if there is no run to resume.
    """
    schema = simulation_schema()
    chosen = override(read_file(schema, file) if file else {}, schema.flatten(given))
    if chosen.get("run.resume") and chosen.get("run.out") and not has_run(resolved(Path(str(chosen["run.out"])))):
        raise SettingError(f"out must be the folder of a run with resume, got {chosen['run.out']!r}")
    return continue_run(chosen, lambda saved, chosen: resolve({**saved, **chosen}))


def _engine_run(settings: RunSettings, folder: Path, watch: Watch | None) -> EngineRun:
    late = DeadlineFilter(settings, folder / TRAFFIC)
    apps = settings.simulation.apps
    return EngineRun(
        server_app=f"{apps}:server_app" if apps else "fedpress.server.app:app",
        client_app=f"{apps}:client_app" if apps else "fedpress.client.app:app",
        num_clients=settings.clients,
        workers=settings.simulation.workers,
        run_config=settings.to_config(),
        states=folder / CHECKPOINT / CLIENTS,
        arrives=None if late.idle else late,
        watching=_watching(folder, watch),
        prepare=partial(_prepare, settings),
    )


def _prepare(settings: RunSettings) -> None:
    """Load what all workers need."""
    if settings.training.optimizer != "sgd":
        import torch._dynamo  # noqa: F401  PyTorch's optimizers import it

    task(settings)


def _make_folder(settings: RunSettings) -> Path:
    if not settings.run.out:
        root = Path("runs")
        root.mkdir(exist_ok=True)
        for number in range(1, 10**6):
            folder = root / f"{settings.simulation.workload.replace(':', '.')}-{number:03}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder.resolve()
    folder = resolved(Path(settings.run.out))
    make_folder(folder)
    return folder


def _empty(folder: Path, settings: RunSettings, force: bool) -> None:
    """Remove an earlier run from `folder` with `force`, unless it is resumed."""
    check_names(folder)
    if not settings.run.resume and holds(folder):
        if not force:
            raise SettingError(
                f"{settings.run.out} holds a run already: continue it with --resume, name another folder, or "
                "overwrite it with --force"
            )
        if str(folder) == settings.simulation.start:
            raise SettingError(f"out must not be {folder}, which holds the run's initial model: name another folder")
        clear(folder)
    make_folder(folder / CHECKPOINT)


@contextmanager
def _watching(folder: Path, watch: Watch | None) -> Iterator[None]:
    """Call `watch` whenever the result in `folder` has a new round."""
    if watch is None:
        yield
        return
    done = Event()

    def follow() -> None:
        seen, written = -1, 0
        while True:
            last = done.wait(_POLL)
            with suppress(FileNotFoundError, DataError):  # not there yet, or a broken one from before a resumed run
                if written != (written := (folder / RESULT).stat().st_mtime_ns):
                    result = read_json(folder / RESULT)
                    if len(result.get("rounds", ())) > seen:
                        seen = len(result["rounds"])
                        watch(result)
            if last:
                return

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

"""Somebody else's Flower app under comparison: its own strategy and training, our codecs around them."""

import hashlib
import json
import os
import random
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedpress.client import compress
from fedpress.common.errors import DataError, SettingError
from fedpress.common.settings import Value
from fedpress.server import Compressed
from fedpress.server.run.recorder import RESULT, Recorder
from fedpress.server.strategy.round_record import Round
from fedpress.settings import RunSettings
from fedpress.simulations import simulate

OURS = {"clients": 10, "workers": 1}  # what belongs to the simulation, with defaults; all else is the app's


@dataclass(frozen=True)
class App:
    """A Flower app, as its pyproject.toml describes it."""

    path: Path
    server: str  # package.module:object
    client: str
    config: Mapping[str, Value]

    @property
    def digest(self) -> str:
        """The hash of its modules: when they change its runs are others."""
        state = hashlib.sha256()
        for file in sorted(self.path.rglob("*.py")):
            state.update(file.read_bytes())
        return state.hexdigest()[:16]

    def load(self) -> tuple[Any, Callable[[Message, Context], Message]]:
        """Return its ServerApp and its ClientApp; raise DataError if they cannot be imported."""
        sys.path.insert(0, str(self.path))
        try:
            return resolve_name(self.server), resolve_name(self.client)
        except Exception as error:  # whatever its modules do when they are imported
            raise DataError(f"{self.path}: the app cannot be imported: {type(error).__name__}: {error}") from error


def read_app(path: Path) -> App:
    """Return the Flower app in the folder `path`; raise DataError if there is none."""
    try:
        flower = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
        components = flower["components"]
        return App(path.resolve(), components["serverapp"], components["clientapp"], flower.get("config", {}))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} holds no Flower app: {error}") from error
    except KeyError as error:
        raise DataError(f"{path}/pyproject.toml describes no Flower app: it has no {error}") from error


def resolve_app(app: App, given: Mapping[str, Value]) -> dict[str, Value]:
    """Return the configuration of a run of `app`; raise SettingError for a key that neither it nor we know."""
    known = {**app.config, **OURS, "seed": 0, "up": "", "down": "", "app": str(app.path), "code": app.digest}
    for key in given:
        if key not in known:
            raise SettingError(
                f"setting {key!r} is none of {', '.join(sorted(known.keys() - {'app', 'code', 'up', 'down'}))}"
            )
    return {**known, **given}


def run_app(config: Mapping[str, Value], folder: Path) -> None:
    """Run an app as `resolve_app` configured it, all of its strategy's messages compressed; leave what a run leaves."""
    app = read_app(Path(str(config["app"])))
    server, client = app.load()
    seed = int(config["seed"])
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  what apps use
    torch.manual_seed(seed)
    mod = compress()

    def compressed_client(message: Message, context: Context) -> Message:
        return mod(message, context, client)

    run_config = {key: config[key] for key in app.config}
    if "seed" in app.config:
        run_config["seed"] = seed

    def compressed_server(grid: Grid, context: Context) -> None:
        with _compressing(config, folder):
            server(grid, context)

    os.chdir(folder)  # what the app writes belongs to this run
    clients, workers = int(config["clients"]), int(config["workers"])
    simulate(compressed_server, compressed_client, clients, workers, run_config=run_config)  # type: ignore[arg-type]
    if not (folder / RESULT).exists():
        raise DataError(f"{app.path}: its ServerApp starts no strategy of Flower's, so there is nothing to compress")


@contextmanager
def _compressing(config: Mapping[str, Value], folder: Path) -> Iterator[None]:
    """Let every strategy that is started be started in `Compressed`, and write its rounds down."""
    plain, ours = Strategy.start, Compressed.start
    started: list[Compressed] = []

    @wraps(plain)
    def start(self: Strategy, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        if started:  # a strategy that leaves the loop to another's
            return plain(self, grid, initial_arrays, *args, **kwargs)
        inner = self.strategy if isinstance(self, Compressed) else self
        wrapped = Compressed(inner, up=str(config["up"]), down=str(config["down"]), seed=int(config["seed"]))
        record, judge = Recorder(folder, _settings(config), wrapped.ledger), _Judge()
        wrapped.on_round = lambda done: record(judge(done))
        started.append(wrapped)
        try:
            result = ours(wrapped, grid, initial_arrays, *args, **kwargs)
        finally:
            started.clear()
        if not judge.last:
            raise DataError("neither its server nor its nodes evaluate the model: there is no accuracy to compare")
        return result

    Strategy.start = Compressed.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Strategy.start, Compressed.start = plain, ours  # type: ignore[method-assign]


def _settings(config: Mapping[str, Value]) -> RunSettings:
    """Return what the record of a run holds of its settings; an app has rounds of its own."""
    given = {"server.up": config["up"], "server.down": config["down"], "run.seed": config["seed"]}
    return RunSettings.read(
        {**given, "simulation.clients": config["clients"], "server.rounds": 1, "server.per-round": 1}
    )


class _Judge:
    """Gives a round accuracy and loss under our names for them: the server's own, or else its nodes'.

    A round in which nobody evaluates has those of the last one in which somebody did.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def __call__(self, done: Round) -> Round:
        """Return the round, judged; raise DataError if what was said of it has no accuracy."""
        found = done.evaluation or done.evaluated or MetricRecord()
        numbers = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
        for ours in ("accuracy", "loss"):
            said = next((value for name, value in numbers.items() if ours[:3] in name.lower()), None)
            if said is not None:
                self.last[ours] = said
        accuracy = self.last.get("accuracy")
        if numbers and (accuracy is None or not 0 <= accuracy <= 1):
            raise DataError(
                f"its evaluation of round {done.number} has no accuracy in [0, 1], a metric with 'acc' in its name: "
                + ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            )
        return replace(done, evaluation=MetricRecord({"accuracy": 0.0, "loss": 0.0, **self.last}))


def main() -> None:
    """Run the app that a file of settings, the first argument, describes, into the folder, the second."""
    config, folder = json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
    try:
        run_app(config, folder)
    except Exception as error:  # noqa: BLE001  the app's own, of which the comparison shows the last line
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

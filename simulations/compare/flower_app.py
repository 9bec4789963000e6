"""A Flower app in a comparison: its own strategy and training, with the candidates' codecs."""

import hashlib
import json
import os
import random
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message

from fedpress.client import compress
from fedpress.common.errors import DataError, SettingError, unknown
from fedpress.common.settings import Value
from fedpress.server.run.recorder import RESULT
from fedpress.simulations import simulate
from fedpress.simulations.compare.opt_in import CLIENTS, DOWN, EVALUATED, FOLDER, SEED, UP

OURS = {"clients": 10, "workers": 1}  # settings of the simulation, with defaults; all others are the app's


@dataclass(frozen=True)
class App:
    """A Flower app, as its pyproject.toml describes it."""

    path: Path
    server: str  # package.module:object
    client: str
    config: Mapping[str, Value]

    @property
    def digest(self) -> str:
        """The hash of its modules: cached runs are invalid when they change."""
        state = hashlib.sha256()
        for file in sorted(self.path.rglob("*.py")):
            state.update(file.read_bytes())
        return state.hexdigest()[:16]

    def load(self) -> tuple[Any, Callable[[Message, Context], Message]]:
        """Return its ServerApp and its ClientApp; raise DataError if they cannot be imported."""
        sys.path.insert(0, str(self.path))
        try:
            return resolve_name(self.server), resolve_name(self.client)
        except Exception as error:  # its modules may raise anything when they are imported
            raise DataError(f"{self.path}: the app cannot be imported: {type(error).__name__}: {error}") from error


def read_app(path: Path) -> App:
    """Return the Flower app in the folder `path`; raise SettingError if there is none."""
    try:
        flower = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8-sig"))["tool"]["flwr"]["app"]
        components = flower["components"]
        return App(path.resolve(), components["serverapp"], components["clientapp"], flower.get("config", {}))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} holds no Flower app: {error}") from error
    except KeyError as error:
        raise SettingError(f"{path}/pyproject.toml must describe a Flower app: {error} is missing") from error


def resolve_app(app: App, given: Mapping[str, Value]) -> dict[str, Value]:
    """Return the configuration of a run of `app`; raise SettingError for an unknown key."""
    known = {**app.config, **OURS, "seed": 0, "up": "", "down": "", "app": str(app.path), "code": app.digest}
    for key in given:
        if key not in known:
            raise SettingError(unknown("setting", key, known.keys() - {"app", "code", "up", "down"}))
    return {**known, **given}


def run_app(config: Mapping[str, Value], folder: Path) -> None:
    """Run an app as `resolve_app` configured it, with the candidate's codecs; leave the files of a run in `folder`.

    Raises
    ------
    DataError
        If the app does not use `comparable`, or evaluates nothing.
    """
    app = read_app(Path(str(config["app"])))
    server, client = app.load()
    seed = int(config["seed"])
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  apps may use the global generator
    torch.manual_seed(seed)
    mod = compress()

    def compressed_client(message: Message, context: Context) -> Message:
        return mod(message, context, client)

    run_config = {key: config[key] for key in app.config}
    if "seed" in app.config:
        run_config["seed"] = seed
    run_config |= {FOLDER: str(folder), UP: config["up"], DOWN: config["down"], SEED: seed, CLIENTS: config["clients"]}
    os.chdir(folder)  # files that the app writes go into this run's folder
    clients, workers = int(config["clients"]), int(config["workers"])
    simulate(server, compressed_client, clients, workers, run_config=run_config)  # type: ignore[arg-type]
    if not (folder / RESULT).exists():
        raise DataError(
            f"{app.path}: its ServerApp must start comparable(strategy, context) in place of strategy; comparable is "
            "in fedpress.simulations.compare"
        )
    if not json.loads((folder / RESULT).read_bytes())["final"][EVALUATED]:
        raise DataError(f"{app.path}: its server or its nodes must evaluate the model")


def main() -> None:
    """Run the app as the file of settings, the first argument, describes; write to the folder, the second one."""
    config, folder = json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
    try:
        run_app(config, folder)
    except Exception as error:  # noqa: BLE001  an error of the app, of which the comparison shows the last line
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

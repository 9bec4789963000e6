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
from fedpress.common.settings import Value, read, values
from fedpress.server.run.recorder import RESULT
from fedpress.simulations import simulate
from fedpress.simulations.compare.app_settings import PREFIX, AppSettings, ComparedRun
from fedpress.simulations.compare.opt_in import EVALUATED

_GIVEN = {"clients", "workers", "seed"}  # settings of the comparison that a user may give; all others are the app's
_CODECS = {"up", "down"}  # from the candidate
_FOUND = {"app", "code"}  # from the app's folder


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
    """Return the Flower app in the folder `path`; raise SettingError without one."""
    try:
        flower = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8-sig"))["tool"]["flwr"]["app"]
        components = flower["components"]
        return App(path.resolve(), components["serverapp"], components["clientapp"], flower.get("config", {}))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} holds no Flower app: {error}") from error
    except KeyError as error:
        raise SettingError(f"{path}/pyproject.toml must describe a Flower app: {error} is missing") from error


def resolve_app(app: App, given: Mapping[str, Value]) -> dict[str, Value]:
    """Return the configuration of a run of `app`; raise SettingError for an unknown key or an invalid value."""
    known = {**app.config, "app": str(app.path), "code": app.digest}
    listed = {*known, *_GIVEN}
    for key in given:
        if key not in listed | _CODECS:
            raise SettingError(unknown("setting", key, listed - _FOUND))
    return values(read(AppSettings, {**known, **given}))


def run_app(settings: AppSettings, folder: Path) -> None:
    """Run an app with the candidate's codecs; leave the files of a run in `folder`.

    Raises
    ------
    DataError
        If the app does not use `comparable`, or evaluates nothing.
    """
    app, seed = read_app(Path(settings.app)), settings.seed
    server, client = app.load()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  apps may use the global generator
    torch.manual_seed(seed)
    mod = compress()

    def compressed_client(message: Message, context: Context) -> Message:
        return mod(message, context, client)

    run = ComparedRun(str(folder), settings.up, settings.down, seed, settings.clients)
    resolved = values(settings)
    run_config = {**{key: resolved[key] for key in app.config}, **values(run, PREFIX)}
    os.chdir(folder)  # files that the app writes go into this run's folder
    simulate(server, compressed_client, settings.clients, settings.workers, run_config=run_config)  # type: ignore[arg-type]
    try:
        final = json.loads((folder / RESULT).read_bytes())["final"]
    except FileNotFoundError as error:
        raise DataError(
            f"{app.path}: its ServerApp must start comparable(strategy, context) in place of strategy; comparable is "
            "in fedpress.simulations.compare"
        ) from error
    if not final[EVALUATED]:
        raise DataError(f"{app.path}: its server or its nodes must evaluate the model")


def main() -> None:
    """Run the app as the file of settings, the first argument, describes; write to the folder, the second one."""
    config, folder = json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
    try:
        run_app(read(AppSettings, config), folder)
    except Exception as error:  # noqa: BLE001  an error of the app, of which the comparison shows the last line
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

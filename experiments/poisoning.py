"""What some bad nodes of ten do to the accuracy, by strategy and codec.

It prints the table of docs/explanation/bad-nodes.md, a line for each attack. Options that it does not know are
settings, such as `--strategy MultiKrum --norm-multiple 0`.
"""

import argparse
import json
import pkgutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

import fedpress.client.app as honest
from fedpress.client import compress
from fedpress.server.app import app as server_app
from fedpress.server.run.recorder import RESULT
from fedpress.settings import RunSettings
from fedpress.simulations import simulate
from fedpress.simulations.settings import resolve

NODES = 10


@dataclass(frozen=True)
class Attack:
    """What bad nodes do with each update that they have trained."""

    name: str
    scale: float = 1.0  # by which they multiply it
    claim: int = 0  # the number of examples that they claim; 0 for the true one


ATTACKS = (
    Attack("nobody is bad"),
    Attack("-10 times the update", -10.0),
    Attack("10 times the update", 10.0),
    Attack("1e9 examples, sign turned", -1.0, 10**9),
)


def app_of(attack: Attack, bad: int) -> ClientApp:
    """Return the ClientApp of fedpress, in which the first `bad` nodes attack."""

    def poison(message: Message, context: Context, train: Callable[[Message, Context], Message]) -> Message:
        ((_, sent),) = message.content.array_records.items()
        start = {name: array.numpy() for name, array in sent.items()}
        reply = train(message, context)
        if int(context.node_config["partition-id"]) < bad and reply.content.array_records:
            ((key, trained),) = reply.content.array_records.items()
            reply.content[key] = ArrayRecord(
                {
                    name: Array((start[name] + attack.scale * (array.numpy() - start[name])).astype(array.dtype))
                    for name, array in trained.items()
                }
            )
            if attack.claim:
                reply.content["metrics"]["num-examples"] = attack.claim
        return reply

    def initial(context: Context) -> dict[str, Any]:
        settings = RunSettings.from_config(context.run_config)
        return dict(pkgutil.resolve_name(settings.deployment.task)(settings).initial())

    app = ClientApp(mods=[compress(initial=initial), poison])
    app.train()(honest.train)
    app.evaluate()(honest.evaluate)
    return app


def accuracy(attack: Attack, bad: int, given: dict[str, Any]) -> float:
    """Return the test accuracy of the last round."""
    with TemporaryDirectory() as folder:
        settings = resolve({"clients": NODES, "per-round": NODES, "rounds": 8, **given, "out": folder})
        pkgutil.resolve_name(settings.deployment.task)(settings)  # loaded once, before workers are started
        simulate(server_app, app_of(attack, bad), NODES, workers=1, run_config=settings.to_config())
        return float(json.loads((Path(folder) / RESULT).read_bytes())["final"]["accuracy"])


def main() -> None:
    """Print a line for each attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bad", type=int, default=1, help="number of bad nodes of ten")
    parser.add_argument("--seeds", default="0", help="seeds, over which accuracies are averaged")
    parser.add_argument("--attacks", default=",".join(map(str, range(len(ATTACKS)))), help="lines of the table")
    options, rest = parser.parse_known_args()
    given = {key.removeprefix("--"): _value(text) for key, text in zip(rest[::2], rest[1::2], strict=True)}
    for attack in (ATTACKS[int(i)] for i in options.attacks.split(",")):
        scores = [
            accuracy(attack, options.bad if attack.scale != 1 or attack.claim else 0, {**given, "seed": int(seed)})
            for seed in options.seeds.split(",")
        ]
        print(f"{attack.name:40} {statistics.mean(scores):.3f}  {' '.join(f'{s:.3f}' for s in scores)}")
        sys.stdout.flush()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()

"""The simulated clock: measured bytes and modelled compute become seconds and joules.

docs/explanation/links.md has the model.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

from fedpress.common.rng import derive
from fedpress.simulations.network.devices import DeviceClass
from fedpress.simulations.network.links import Link


@dataclass(frozen=True)
class NodeRound:
    """What one node did in one round, as clients.csv has it."""

    round: int
    node: str
    down: int  # bytes of the messages to it
    up: int  # bytes of the messages from it
    examples: float | None  # that it trained on; None if its reply did not count
    training: float  # seconds that its app took, where it ran
    coding: float  # seconds that decoding and encoding took, where it ran


@dataclass(frozen=True)
class Pace:
    """How fast the machine that ran the comparison is: medians over what it measured."""

    training: float  # seconds an example, local epochs included
    coding: float  # seconds a visit


@dataclass(frozen=True)
class RoundTime:
    """What a round took on a link."""

    seconds: float  # until the last reply, or the deadline
    joules: float | None  # of all radios together; None if the link does not say


def read_visits(path: Path) -> list[NodeRound]:
    """Return the visits of a run, from its clients.csv, in order of rounds."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            NodeRound(
                int(row["round"]),
                row["node"],
                int(row["down_message"]),
                int(row["up_message"]),
                float(row["examples"]) if row["examples"] else None,
                float(row["training_seconds"] or 0),
                float(row["coding_seconds"] or 0),
            )
            for row in csv.DictReader(file)
        ]


def measure(visits: Iterable[NodeRound]) -> Pace:
    """Return the pace at which the visits were made; medians, since machines are noisy."""
    done = [visit for visit in visits if visit.examples]
    if not done:
        return Pace(0.0, 0.0)
    return Pace(median(v.training / (v.examples or 1) for v in done), median(v.coding for v in done))


def clock(
    visits: Sequence[NodeRound],
    link: Link,
    fleet: DeviceClass,
    pace: Pace,
    *,
    seed: int,
    deadline: float = 0.0,
    rounds: int = 0,
) -> list[RoundTime]:
    """Return what each round took, if all nodes are on `link` and of `fleet`; at least `rounds` of them.

    A node gets its model, trains, and sends its update; the round is over with the last reply. One whose reply did
    not come or did not count is waited for until the deadline, where there is one, and not at all where there is none.
    A round in which nobody was asked took nothing.
    """
    spent: list[RoundTime] = []
    now = 0.0
    found = {number: list(group) for number, group in groupby(visits, key=lambda visit: visit.round)}
    for number in range(1, max([rounds, *found]) + 1):
        nodes = found.get(number, [])
        took = [visit_seconds(visit, link, fleet, pace, seed=seed, now=now) for visit in nodes if visit.examples]
        if deadline and (len(took) < len(nodes) or max(took, default=0.0) > deadline):
            took = [deadline]
        ways = ((visit.down, visit.up) for visit in nodes)
        joules = [energy(link, down, up) for down, up in ways]
        known = [joule for joule in joules if joule is not None]
        spent.append(RoundTime(max(took, default=0.0), sum(known) if len(known) == len(joules) else None))
        now += spent[-1].seconds
    return spent


def visit_seconds(visit: NodeRound, link: Link, fleet: DeviceClass, pace: Pace, *, seed: int, now: float) -> float:
    """Return how long a node takes for a round that begins at second `now` of the run."""
    # On a measured link every node is at a place of its own in the trace.
    start = now + (float(derive(seed, "trace", visit.node).random()) * link.trace.seconds[-1] if link.trace else 0.0)
    received = link.seconds("down", visit.down, start)
    work = fleet.slowness(visit.node, seed) * (pace.training * (visit.examples or 0) + pace.coding)
    return received + work + link.seconds("up", visit.up, start + received + work)


def energy(link: Link, down: int, up: int) -> float | None:
    """Return what a node's radio spends on a round, joules; None if the link does not say."""
    received, sent = link.joules("down", down), link.joules("up", up)
    return None if received is None or sent is None else received + sent

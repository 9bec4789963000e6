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
    """The work of one node in one round, a row of clients.csv."""

    round: int
    node: str
    down: int  # bytes of the messages to it
    up: int  # bytes of the messages from it
    examples: float | None  # number of training examples; None if its reply was not aggregated
    training: float  # seconds of its app, on the machine that ran it
    coding: float  # seconds of decoding and encoding, on the machine that ran it


@dataclass(frozen=True)
class Pace:
    """The speed of the machine that ran the comparison, as medians of its measurements."""

    training: float  # seconds per example, local epochs included
    coding: float  # seconds per node and round


@dataclass(frozen=True)
class RoundTime:
    """The time and energy of a round on a link."""

    seconds: float  # until the last reply, or the deadline
    joules: float | None  # of all radios together; None if unknown for the link


def read_visits(path: Path) -> list[NodeRound]:
    """Return the rows of a run's clients.csv, in order of rounds."""
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
            if int(row["down_message"])  # a node that only evaluated has a row too
        ]


def measure(visits: Iterable[NodeRound]) -> Pace:
    """Return the pace of these measurements; medians, since machines are noisy."""
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
    """Return the time of each round if all nodes are on `link` and of `fleet`; of at least `rounds` rounds.

    A node receives its model, trains, and sends its update; the round ends with the last reply. For a reply that is
    missing or was not aggregated the server waits until the deadline; without a deadline it is ignored. A round
    without requests takes no time.
    """
    spent: list[RoundTime] = []
    now = 0.0
    found = {number: list(group) for number, group in groupby(visits, key=lambda visit: visit.round)}
    for number in range(1, max([rounds, *found]) + 1):
        nodes = found.get(number, [])
        times = [visit_seconds(visit, link, fleet, pace, seed=seed, now=now) for visit in nodes if visit.examples]
        if deadline and (len(times) < len(nodes) or max(times, default=0.0) > deadline):
            times = [deadline]
        joules = [energy(link, visit.down, visit.up) for visit in nodes]
        known = [joule for joule in joules if joule is not None]
        spent.append(RoundTime(max(times, default=0.0), sum(known) if len(known) == len(joules) else None))
        now += spent[-1].seconds
    return spent


def visit_seconds(visit: NodeRound, link: Link, fleet: DeviceClass, pace: Pace, *, seed: int, now: float) -> float:
    """Return the seconds of a node for a round that begins at second `now` of the run."""
    # On a measured link every node starts at a different position in the trace.
    start = now + (float(derive(seed, "trace", visit.node).random()) * link.trace.seconds[-1] if link.trace else 0.0)
    received = link.seconds("down", visit.down, start)
    work = fleet.slowness(visit.node, seed) * (pace.training * (visit.examples or 0) + pace.coding)
    return received + work + link.seconds("up", visit.up, start + received + work)


def energy(link: Link, down: int, up: int) -> float | None:
    """Return the energy of a node's radio for a round, joules; None if unknown for the link."""
    received, sent = link.joules("down", down), link.joules("up", up)
    return None if received is None or sent is None else received + sent

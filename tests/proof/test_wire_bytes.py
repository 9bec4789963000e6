"""What goes over the sockets is what the ledger says, and little else: counted below TLS, and inside it."""

import csv
import json
from collections import Counter
from collections.abc import Callable

import pytest

from .federation import Federation

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]
ROUNDS = 6


@pytest.mark.parametrize("up", ["ef | fp16", "ef | topk(0.2) | pack"])
def test_the_sockets_carry_what_the_ledger_says(up: str, make_federation: Make, tell: Callable[[str], None]) -> None:
    federation = make_federation(nodes=2, rounds=ROUNDS, settings={"up": up})
    federation.start_server()
    federation.wait_listening()
    taps = {name: federation.folder / f"{name}.tap" for name in federation.names}
    for name in federation.names:
        federation.start_client(name, module="tapped", more={"FEDPRESS_PROOF_TAP": str(taps[name])})
    result = federation.finish()

    with (federation.out / "clients.csv").open() as file:
        rows = list(csv.DictReader(file))
    ledger = {
        key: sum(int(row[key]) for row in rows) for key in ("up_frame", "up_message", "down_frame", "down_message")
    }
    assert ledger["up_frame"] == sum(row["uplink_bytes"] for row in result["rounds"])
    assert ledger["down_message"] == sum(row["downlink_message_bytes"] for row in result["rounds"])

    tapped = [json.loads(line) for path in taps.values() for line in path.read_text().splitlines()]
    socket = {
        "up": sum(line.traffic.up for line in federation.lines.values()),
        "down": sum(line.traffic.down for line in federation.lines.values()),
    }
    requests = Counter(row["name"] for row in tapped)
    for way in ("up", "down"):
        bodies, heads = (sum(row[f"{part}_{way}"] for row in tapped) for part in ("body", "head"))
        frames, messages = ledger[f"{way}_frame"], ledger[f"{way}_message"]
        # Each is inside the next: frames in messages, messages in bodies, bodies in HTTP, HTTP in TLS.
        assert frames < messages < socket[way]
        assert frames < bodies < bodies + heads < socket[way]
        parts = {
            "frames": frames,
            "rest of messages, and Flower's requests": bodies - frames,
            "HTTP": heads,
            "TLS, and what was cut off": socket[way] - bodies - heads,
        }
        assert sum(parts.values()) == socket[way]
        told = ", ".join(f"{name} {nbytes:,}" for name, nbytes in parts.items())
        tell(f"{up}, {way}, {ROUNDS} rounds of 2 clients, bytes: {socket[way]:,} on the sockets: {told}")
        tell(f"{up}, {way}: messages as the ledger has them: {messages:,}")
    each = {name: count / ROUNDS / len(federation.names) for name, count in requests.most_common()}
    tell(f"{up}, requests a round a client: " + ", ".join(f"{name} {count:.2f}" for name, count in each.items()))
    # What the protocol cannot do without: a question that is answered, the reply and the objects it is made of.
    assert requests["push-messages"] >= ROUNDS * len(federation.names)

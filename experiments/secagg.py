#!/usr/bin/env python3
"""Measure what secure aggregation costs: one round of Flower's SecAgg+, its real messages counted.

    python experiments/secagg.py RUN    RUN is a folder that `fedpress simulate` left; prints JSON

The round has the model of RUN and as many nodes as the first round of RUN.

SecAgg+, Bell et al. 2020, https://eprint.iacr.org/2020/704: the server learns the sum of the updates and none of them.
Each parameter is masked as an integer below 2^32, which flwr 1.41 sends in eight bytes, so that no codec of updates can
go under it. It is flwr's older interface, used nowhere else.
"""

import json
import logging
import sys
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from safetensors.numpy import load_file

from fedpress.common.errors import FedpressError
from fedpress.common.logs import quiet_flower
from fedpress.compression import Layout, Update
from fedpress.flower.message_size import message_nbytes
from fedpress.flower.runtime import identify, message_of, parts_of, stamp
from fedpress.server.run.recorder import MODEL, TRAFFIC
from fedpress.simulations.network.clock import read_visits

SHARES, THRESHOLD = 3, 2  # of flwr's own example
_EXAMPLES, _MOST = 10, 100.0  # that each node weighs, and may


@dataclass(frozen=True)
class SecAgg:
    """Bytes of messages, each way, for one node in one round."""

    nodes: int
    up: float
    down: float
    plain: int  # of the model as float32


def measure(model: Update, nodes: int) -> SecAgg:
    """Return what a round of SecAgg+ with so many nodes, three at least, costs."""
    from flwr.common import FitIns, ndarrays_to_parameters
    from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD

    floats = {t.name: model[t.name].astype(np.float32) for t in Layout.of(model).floating}
    parameters = ndarrays_to_parameters(list(floats.values()))
    asked = [(SimpleNamespace(node_id=node), FitIns(parameters, {})) for node in range(1, max(3, nodes) + 1)]
    grid, summed = _Grid(parameters), []

    def sum_up(*_: object) -> tuple[Any, dict[str, float]]:
        summed.append(True)
        return parameters, {}

    identify(run_id=1)  # without it no message can be made
    with quiet_flower(logging.CRITICAL):  # it warns that this is its older interface
        server = LegacyContext(
            Context(1, 1, {}, RecordDict(), {}),
            strategy=cast(
                "Any",
                SimpleNamespace(configure_fit=lambda *_: asked, aggregate_fit=sum_up),
            ),
            client_manager=cast("Any", SimpleNamespace(num_available=lambda: len(asked))),
        )
        server.state[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
        server.state[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(parameters, keep_input=True)
        workflow = SecAggPlusWorkflow(SHARES, THRESHOLD, max_weight=_MOST)
        workflow(cast("Any", grid), server)
    if not summed:
        raise FedpressError("SecAgg+ did not come to a sum")
    return SecAgg(len(asked), grid.up / len(asked), grid.down / len(asked), Layout.of(floats).nbytes)


class _Grid:
    """Nodes in this process, which all send back the model that they got."""

    def __init__(self, parameters: Any) -> None:
        self._parameters = parameters
        self._contexts: dict[int, Context] = {}
        self.up = self.down = 0  # bytes

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        from flwr.client.mod import secaggplus_mod

        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            context = self._contexts.setdefault(node, Context(1, node, {}, RecordDict(), {}))
            self.down += message_nbytes(stamp(message, 1))
            metadata, content, _ = parts_of(message)
            own = message_of(metadata, deepcopy(content))  # as the wire would: nodes take things out of theirs
            reply = stamp(secaggplus_mod(own, context, self._train), 1)
            self.up += message_nbytes(reply)
            replies.append(reply)
        return replies

    def _train(self, message: Message, _: Context) -> Message:
        from flwr.common import Code, FitRes, Status
        from flwr.compat.common.recorddict_compat import fitres_to_recorddict

        result = FitRes(Status(Code.OK, ""), self._parameters, _EXAMPLES, {})
        return Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)


def main() -> None:
    """Print what the round costs a node, as JSON."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    nodes = sum(visit.round == 1 for visit in read_visits(folder / TRAFFIC))
    print(json.dumps(asdict(measure(load_file(folder / MODEL), nodes))))


if __name__ == "__main__":
    main()

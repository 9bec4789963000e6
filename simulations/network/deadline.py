"""Deadlines and dropouts: drops replies that would be late on the simulated link, or would not be sent."""

import logging
from pathlib import Path

from flwr.app import Message, MessageType, RecordDict

from fedpress.common.logs import LOGGER
from fedpress.flower.message_size import message_nbytes
from fedpress.protocol.folding import unfold
from fedpress.protocol.messages import RECORD_NAME, TrainRequest, read_request
from fedpress.settings import RunSettings
from fedpress.simulations.network.clock import NodeRound, Pace, clock, read_visits, visit_seconds
from fedpress.simulations.network.devices import find_devices
from fedpress.simulations.network.links import find_link

_log = logging.getLogger(LOGGER)


class DeadlineFilter:
    """Decides whether a training reply arrives. The node is not notified, as on a real link."""

    def __init__(self, settings: RunSettings, traffic: Path) -> None:
        network = settings.network
        self._link, self._fleet = find_link(network.link), find_devices(network.devices)
        self._pace = Pace(network.training_pace, network.coding_pace)
        self._deadline = network.deadline
        self._seed = settings.run.seed
        self._traffic = traffic  # clients.csv
        self._round, self._now, self._latest = 0, 0.0, 0.0

    @property
    def idle(self) -> bool:
        """Whether all replies arrive, whatever their time."""
        return not self._deadline and not self._fleet.dropouts

    def __call__(self, partition: int, message: Message, reply: Message) -> bool:
        """Return whether the reply of the node of `partition` to `message` arrives."""
        content = RecordDict(dict(message.content))
        unfold(content)
        record = content.config_records.get(RECORD_NAME)
        request = read_request(record) if record else None
        trains = message.metadata.message_type.startswith(MessageType.TRAIN)
        if not trains or not isinstance(request, TrainRequest) or reply.has_error():
            return True
        content = RecordDict(dict(reply.content))
        unfold(content)
        if not content.metric_records:
            return True
        number, node = request.round, str(partition)
        if number > self._round:  # simulated time advances by the duration of the last round
            now = self._now + self._latest if number == self._round + 1 else self._before(number)
            self._round, self._now, self._latest = number, now, 0.0
        metrics = next(iter(content.metric_records.values()))
        examples = float(metrics.get("num-examples", 0))  # type: ignore[arg-type]
        visit = NodeRound(number, node, message_nbytes(message), message_nbytes(reply), examples, 0.0, 0.0)
        seconds = visit_seconds(visit, self._link, self._fleet, self._pace, seed=self._seed, now=self._now)
        if self._fleet.drops(node, number, self._seed):
            self._latest = self._deadline or self._latest  # the server waits until the deadline
            _log.warning("round %d: node %s leaves the round", number, node)
            return False
        if self._deadline and seconds > self._deadline:
            self._latest = self._deadline
            _log.warning(
                "round %d: node %s is late: %.1f seconds, the deadline is %.1f", number, node, seconds, self._deadline
            )
            return False
        self._latest = max(self._latest, seconds)
        return True

    def _before(self, number: int) -> float:
        """Return the seconds of all rounds before `number`, for a resumed run, from its clients.csv."""
        visits = [visit for visit in read_visits(self._traffic) if visit.round < number]
        spent = clock(visits, self._link, self._fleet, self._pace, seed=self._seed, deadline=self._deadline)
        return sum(step.seconds for step in spent)

"""Flower's Grid in process: ClientApps in worker processes get messages without a socket or a serialised message."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from flwr.app import Message, RecordDict

from fedpress.common.errors import SettingError
from fedpress.common.logs import LOGGER
from fedpress.compression.third_party import own_codecs
from fedpress.flower.grid import EngineGrid, RestoredStates, Run
from fedpress.flower.runtime import CRASHED, RAISED, empty_run, error_reply, message_of, parts_of, stamp
from fedpress.simulations.engine.blob_store import Blobs
from fedpress.simulations.engine.pool import Pool
from fedpress.simulations.engine.state_store import StateLedger
from fedpress.simulations.engine.worker import Job, JobResult

Arrives = Callable[[int, Message, Message], bool]  # returns whether a partition's reply to a message is in time

_log = logging.getLogger(LOGGER)

_POLLS, _POLL = 5, 0.5  # calls of get_node_ids, with a pause of so many seconds, by which a ServerApp waits for nodes


class InProcessGrid(EngineGrid):
    """The grid of an in-process ServerApp.

    Replies come in the order of the messages. A node whose app raises, or whose worker dies, yields an error reply and
    keeps its state; one that exceeds the timeout yields none. Messages' times to live are ignored.

    Parameters
    ----------
    pool : Pool
        The worker processes.
    partition_of : mapping of int to int
        Partition of each node, by node id.
    run_id : int
        Flower's id of the run.
    mail : Path
        Folder of the messages' large arrays.
    states : Path
        Folder of the nodes' states.
    arrives : callable, optional
        Returns whether a reply is in time, given the partition, the message and the reply; all are if None.
    """

    lazy: ClassVar[bool] = True

    def __init__(
        self,
        pool: Pool,
        partition_of: Mapping[int, int],
        run_id: int,
        *,
        mail: Path,
        states: Path,
        arrives: Arrives | None = None,
    ) -> None:
        self.partition_of = partition_of
        self.failures = 0
        self._arrives = arrives
        self._pool = pool
        self._run = empty_run(run_id)
        self._mail = Blobs(mail, lasting=False)
        self._states = StateLedger(states)
        self._pushed: dict[str, Message] = {}
        self._thread = threading.get_ident()  # of the ServerApp
        self._polls, self._polled = 0, time.monotonic()  # slow calls of get_node_ids since a message was sent
        self._lock = threading.Lock()  # apps of Flower's older API send single messages from threads

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        if threading.get_ident() == self._thread:
            self._notice_waiting()
        return list(self.partition_of)

    def _notice_waiting(self) -> None:
        """Raise SettingError if the ServerApp has polled for nodes for a while and sent nothing: no other will join."""
        now = time.monotonic()
        self._polls += now - self._polled > _POLL
        self._polled = now
        if self._polls > _POLLS:
            raise SettingError(
                f"the ServerApp waits for more nodes than there are, {len(self.partition_of)}, and no other can join: "
                "lower its strategy's min_available_nodes, or run more clients"
            )

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            stamp(message, self._run.run_id)
            self._pushed[message.metadata.message_id] = message
            names.append(message.metadata.message_id)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        # Nothing runs in the background: pushed messages are processed when their replies are pulled.
        pulled = [self._pushed.pop(name) for name in message_ids if name in self._pushed]
        return self._deliver(pulled, None)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        # Lazily: the caller makes further messages while workers process the first ones.
        return self._deliver((stamp(message, self._run.run_id) for message in messages), timeout)

    def names(self) -> Mapping[int, str]:
        return {node: str(partition) for node, partition in self.partition_of.items()}

    def most_nodes(self) -> int:
        return len(self.partition_of)

    def snapshot(self) -> dict[str, list[str]]:
        """Return the nodes' present states as JSON; it can be restored until two more snapshots are taken."""
        return self._states.snapshot()

    def restore(self, snapshot: Mapping[str, list[str]] | None) -> RestoredStates:
        """Restore the nodes' states of a snapshot, taken in this process or in an earlier one."""
        restored = snapshot is not None and self._states.restore(snapshot)
        return RestoredStates.RESTORED if restored else RestoredStates.LOST

    def _deliver(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        sent: list[Message] = []
        used: set[str] = set()

        def jobs() -> Iterator[Job]:
            for message in messages:
                sent.append(message)
                metadata, content, _ = parts_of(message)
                data, names = self._mail.dump(content)
                used.update(names)
                node = message.metadata.dst_node_id
                yield Job(node, metadata, self._states.head(node), data, own_codecs())

        with self._lock:
            self._polls = 0
            replies = {}
            for place, done in self._pool.run(jobs(), timeout):
                used |= done.mail
                replies[place] = self._read_result(sent[place], done)
            self.failures += len(sent) - sum(not reply.has_error() for reply in replies.values())
            self._mail.forget(used)
            self._states.collect()
            return [replies[place] for place in sorted(replies) if self._in_time(sent[place], replies[place])]

    def _in_time(self, message: Message, reply: Message) -> bool:
        partition = self.partition_of.get(message.metadata.dst_node_id)
        return self._arrives is None or partition is None or self._arrives(partition, message, reply)

    def _read_result(self, message: Message, done: JobResult) -> Message:
        node = message.metadata.dst_node_id
        partition = self.partition_of.get(node)
        if not done.reply:
            _log.error("client %s failed:\n%s", partition, done.failure)
            code = CRASHED if done.failure.startswith("worker ") else RAISED
            return stamp(error_reply(message, code, done.failure.strip().splitlines()[-1]), self._run.run_id)
        self._states.commit(node, done.state)
        return stamp(message_of(*self._mail.load(done.reply)), self._run.run_id)

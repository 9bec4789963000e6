"""The device's loop under faults: it logs one line and continues."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest

from fedpress.client.edge.journal import Journal
from fedpress.client.edge.limits import Availability
from fedpress.client.edge.runner import Runner
from fedpress.common.errors import RefusedError, ServerError, ServerUnavailableError
from fedpress.flower.fleet_api import RunInfo
from fedpress.flower.mail import IncomingMessage, OutgoingReply
from fedpress.settings.device import LimitSettings, PollingSettings

from .test_flower import a_message

WORK = IncomingMessage("m", 1, b"")


class Line:
    """A connection that does what a test says, and notes what was called."""

    node = 5
    warning = ""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.fails: dict[str, ServerError] = {}

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*_: object) -> object:
            self.called.append(name)
            if name in self.fails:
                raise self.fails[name]
            return 5 if name == "connect" else None

        return call


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[Runner, Line]]]:
    journals = []

    def build(
        app: ClientApp | None = None, limits: LimitSettings | None = None, **options: object
    ) -> tuple[Runner, Line]:
        journals.append(Journal(tmp_path))
        gate = Availability(limits or LimitSettings(), lambda: 0, {})
        line = Line()
        polling = PollingSettings()
        runner = Runner(line, journals[-1], app or ClientApp(), node={}, polling=polling, gate=gate, **options)  # type: ignore[arg-type]
        return runner, line

    yield build
    for journal in journals:
        journal.close()


def reason(letter: OutgoingReply) -> str:
    (head,) = PushMessagesRequest.FromString(letter.head).messages_list
    message = message_from_proto(head)
    assert message.has_error()
    return str(message.error.reason)


@pytest.mark.parametrize("key", ["deployment.task", "simulation.workload"])
def test_only_what_the_device_names_is_made(key: str, make, caplog: pytest.LogCaptureFixture) -> None:
    ran = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        ran.append(context.run_config[key])
        return Message(RecordDict({"c": ConfigRecord()}), reply_to=message)

    runner, _ = make(app, tasks=("mine:task",))
    said = reason(runner._reply(WORK, a_message(), RunInfo(1, {key: "subprocess:Popen", "rm": "-rf"})))
    name = key.rpartition(".")[2]
    refusal = f"this device makes no {name} 'subprocess:Popen': its client.toml does not name it in tasks"
    assert said == f"SettingError: {refusal}"
    for allowed in ("mine:task", "fedpress.simulations.workloads:task", "digits"):
        runner._reply(WORK, a_message(), RunInfo(1, {key: allowed}))
    assert ran == ["mine:task", "fedpress.simulations.workloads:task", "digits"]


@pytest.mark.parametrize("error", [ValueError("two\nlines"), SystemExit(3), MemoryError(), KeyError("lr")])
def test_an_app_that_fails_is_a_reply_that_says_so(error: BaseException, make) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        context.state["half"] = ConfigRecord({"done": True})
        raise error

    runner, _ = make(app)
    said = reason(runner._reply(WORK, a_message(), RunInfo(1, {})))
    assert said.startswith(type(error).__name__)
    assert "\n" not in said
    assert runner.status.failures["app"] == 1
    assert runner._journal.load(1) == RecordDict()


def test_a_process_that_an_app_forks_ends_where_it_leaves_the_app(make) -> None:
    app, codes = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        pid = os.fork()
        if pid == 0:
            sys.exit(5)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return Message(RecordDict(), reply_to=message)

    runner, _ = make(app)
    runner._reply(WORK, a_message(), RunInfo(1, {}))
    assert codes == [5]
    assert runner.status.failures["app"] == 0


def test_while_a_limit_holds_the_device_is_signed_off_and_asks_for_nothing(make, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    runner, line = make(limits=LimitSettings(allow=f"test -e {gate}"))
    assert runner._step() > 1
    assert line.called == []
    gate.touch()
    runner._gate._asked = float("-inf")
    runner._step()
    assert line.called == ["connect", "pull"]
    gate.unlink()
    runner._gate._asked = float("-inf")
    assert runner._step() > 1
    assert line.called == ["connect", "pull", "leave"]
    assert not runner.status.connected


def test_a_complaint_is_made_once_and_a_recovery_too(make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fedpress")
    runner, line = make()
    waits = [runner._complain("server", ServerUnavailableError("away"), 0.1) for _ in range(5)]
    assert waits == [0.1] * 5
    assert runner.status.failures["server"] == 5
    assert caplog.text.count("away") == 1
    runner.status.connect(True)
    runner._step()
    runner._step()
    assert caplog.text.count("the server answers again") == 1
    assert line.called == ["pull", "heartbeat", "pull"]


def test_a_key_that_is_not_taken_is_tried_again_slowly(make, caplog: pytest.LogCaptureFixture) -> None:
    runner, line = make()
    line.fails["connect"] = RefusedError("the server does not take this device's key: revoked")
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            runner.stop()
        return False

    runner._stopping.wait = wait  # type: ignore[method-assign,assignment]
    runner._beat = lambda: None  # type: ignore[method-assign]
    runner.run()
    assert all(wait >= 0.9 * PollingSettings().refused for wait in waits)
    assert caplog.text.count("does not take this device's key") == 1
    assert runner.status.failures["key"] == 3

"""What a server tells: health, metrics, and lines."""

import json
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedpress.cli.console.server_table import Fleet
from fedpress.common.errors import SettingError
from fedpress.server.deploy.health import Health
from fedpress.server.deploy.metrics import Metrics
from fedpress.server.deploy.state import NodeState, Records, State
from fedpress.server.run.launcher import free_port
from fedpress.settings import RunSettings

CONFIG = RunSettings.from_config({"server.rounds": 3, "server.per-round": 2, "simulation.clients": 2}).to_result()
ROW = {
    "round": 1,
    "accuracy": 0.5,
    "uplink_bytes": 10,
    "downlink_bytes": 20,
    "uplink_message_bytes": 12,
    "downlink_message_bytes": 24,
    "clients": 2,
    "failures": 1,
    "seconds": 2.0,
}


def node(name: str, *, online: bool = True) -> NodeState:
    return NodeState(name=name, id=7, online=online, seen=1.0, version="ab", up=5, down=6, failures=0)


@pytest.fixture
def state() -> State:
    return State(
        "running", [node("a"), node("b", online=False)], 2, 3, {"config": CONFIG, "rounds": [ROW]}, {"stale": 4}, 1
    )


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def test_health_follows_superlink_and_the_run(address: str) -> None:
    health = Health(address)
    with grpc.insecure_channel(address) as channel:
        ask = health_pb2_grpc.HealthStub(channel).Check

        def serving(name: str) -> bool:
            answer = ask(health_pb2.HealthCheckRequest(service=name), timeout=20)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        for superlink, run in ((False, False), (True, False), (True, True), (False, True)):
            health.tell(superlink=superlink, run=run)
            assert [serving(name) for name in ("superlink", "run", "")] == [superlink, run, superlink and run]
        with pytest.raises(SettingError, match="cannot be listened on, for health"):
            Health(address)
    health.close()


def test_metrics_are_of_the_state_as_it_is(address: str, state: State) -> None:
    metrics = Metrics(address, state)
    with httpx.Client(trust_env=False) as client:
        lines = client.get(f"http://{address}/metrics").text.splitlines()
        for line in (
            "fedpress_rounds_total 1.0",
            'fedpress_frame_bytes_total{direction="up"} 10.0',
            'fedpress_body_bytes_total{direction="down"} 12.0',
            "fedpress_failures_total 1.0",
            "fedpress_round_seconds_total 2.0",
            "fedpress_nodes_online 1.0",
            "fedpress_nodes_enrolled 2.0",
            'fedpress_refusals_total{cause="stale"} 4.0',
            "fedpress_restarts_total 1.0",
        ):
            assert line in lines
        state.nodes = []
        assert "fedpress_nodes_online 0.0" in client.get(f"http://{address}/metrics").text
    with pytest.raises(SettingError, match="cannot be listened on, for metrics"):
        Metrics(address, state)
    metrics.close()


def test_in_a_pipe_each_change_is_a_line(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    with Fleet(as_json=False) as fleet:
        fleet.show(state)
        fleet.show(state)
        state.nodes = [node("a", online=False)]
        state.result = {"config": CONFIG, "rounds": [ROW, {**ROW, "round": 2}]}
        fleet.show(state)
    out, err = capsys.readouterr()
    assert not out
    starts = ["running", "node a is online", "round 1/3", "node a is gone", "node b is shut out", "round 2/3"]
    assert [line.startswith(start) for line, start in zip(err.splitlines(), starts, strict=True)] == [True] * 6


def test_as_json_each_change_is_an_object(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    with Fleet(as_json=True) as fleet:
        fleet.show(state)
    out, err = capsys.readouterr()
    assert not err
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["phase", "node", "round"]


def test_failures_are_counted_by_node(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"rounds": [ROW]}))
    rows = ["round,node,down_message,examples", "1,a,5,10", "1,b,5,", "2,b,5,"]
    (tmp_path / "clients.csv").write_text("\n".join(rows))
    records = Records(tmp_path)
    assert records.refresh()
    assert not records.refresh()
    assert records.failures == {"a": 0, "b": 2}

"""Simulated time continues after a resume, and over rounds without requests."""

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message, MetricRecord, RecordDict

from fedpress.flower.message_size import message_nbytes
from fedpress.flower.runtime import identify, stamp
from fedpress.protocol.messages import RECORD_NAME
from fedpress.protocol.model_frames import ModelFrames
from fedpress.simulations.network.clock import NodeRound, Pace, clock
from fedpress.simulations.network.deadline import DeadlineFilter
from fedpress.simulations.network.devices import FLEETS
from fedpress.simulations.network.links import LINKS
from fedpress.simulations.settings import resolve

from ...protocol.models import request_of

HEAD = "round,node,down_frame,down_message,up_frame,up_message,examples,training_seconds,coding_seconds\n"
SETTINGS = resolve({"link": "nb-iot", "deadline": 1e6, "training-pace": 0.1, "coding-pace": 0.5})


def exchanged(number: int) -> tuple[Message, Message]:
    identify(run_id=1)
    request = replace(request_of(ModelFrames((), (), ())), layout="x" * 5000, round=number)
    content = RecordDict({RECORD_NAME: request.to_record()})
    message = stamp(Message(content, 7, "train"), 1)
    return message, stamp(Message(RecordDict({"m": MetricRecord({"num-examples": 10})}), reply_to=message), 1)


def test_a_run_that_goes_on_goes_on_in_time(tmp_path: Path) -> None:
    traffic, rows = tmp_path / "clients.csv", [HEAD]
    whole = DeadlineFilter(SETTINGS, traffic)
    for number in (1, 2, 3):
        message, reply = exchanged(number)
        assert whole(0, message, reply)
        rows.append(f"{number},0,0,{message_nbytes(message)},0,{message_nbytes(reply)},10,0,0\n")
    traffic.write_text("".join(rows))
    resumed = DeadlineFilter(SETTINGS, traffic)
    assert resumed(0, *exchanged(3))
    now = getattr(whole, "_now")  # noqa: B009  seconds of the run at which round 3 begins
    assert now > 5
    assert getattr(resumed, "_now") == pytest.approx(now, abs=0.01)  # noqa: B009


def test_a_round_without_anybody_takes_no_time_and_has_its_place() -> None:
    visits = [NodeRound(number, "0", 1000, 1000, 10.0, 0.0, 0.0) for number in (1, 3)]
    spent = clock(visits, LINKS["4g"], FLEETS["this"], Pace(0.1, 0.0), seed=0, deadline=60.0, rounds=4)
    assert [step.seconds > 0 for step in spent] == [True, False, True, False]

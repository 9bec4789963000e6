"""Apps for the tests of the Ray engine, which imports them by name in other processes."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

echo = ClientApp()
survey, impatient, endless, suicidal = ServerApp(), ServerApp(), ServerApp(), ServerApp()


@echo.train()
def reply(message: Message, context: Context) -> Message:
    """Send the message back; partition 1 cannot."""
    if context.node_config["partition-id"] == 1:
        raise ValueError("this client never works")
    return Message(message.content, reply_to=message)


@survey.main()
def ask_everyone(grid: Grid, context: Context) -> None:
    """Send an array to every node, twice; write down what came back, and how things look from here."""
    content = RecordDict({"model": ArrayRecord([np.arange(1_600_000, dtype=np.float32)])})
    nodes = list(grid.get_node_ids())
    rounds = []
    for _ in range(2):
        replies = list(grid.send_and_receive([Message(content, node, "train") for node in nodes]))
        good = [reply.content for reply in replies if reply.has_content()]
        rounds.append({"replies": len(replies), "whole": sum(c == content for c in good), "good": len(good)})
    seen = {"nodes": len(nodes), "rounds": rounds, "config": dict(context.run_config), "folder": str(Path.cwd())}
    seen |= {"home": os.environ["FLWR_HOME"], "threads": os.environ["OMP_NUM_THREADS"]}
    Path(str(context.run_config["out"])).write_text(json.dumps(seen))


@impatient.main()
def give_up(grid: Grid, context: Context) -> None:
    """Fail."""
    raise RuntimeError("nothing works today")


@suicidal.main()
def die(grid: Grid, context: Context) -> None:
    """Die, as a process does that has used up the memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@endless.main()
def wait(grid: Grid, context: Context) -> None:
    """Get Ray going, say where everything is, and never end."""
    messages = [Message(RecordDict(), node, "train") for node in grid.get_node_ids()]
    list(grid.send_and_receive(messages))
    out = Path(str(context.run_config["out"]))
    out.with_suffix(".part").write_text(os.environ["FLWR_HOME"])
    out.with_suffix(".part").rename(out)
    time.sleep(3600)

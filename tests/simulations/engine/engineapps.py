"""Flower apps for tests of the engine, written the way Flower's tutorials write theirs."""

import random

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedpress.simulations import simulate


def tutorial() -> tuple[ServerApp, ClientApp]:
    """Softmax regression in numpy on scikit-learn's digits, federated averaging."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        part, parts = context.node_config["partition-id"], context.node_config["num-partitions"]
        x, y = images[part::parts] / 16, labels[part::parts]
        (w,) = message.content["arrays"].to_numpy_ndarrays()
        for _ in range(5):
            scores = np.exp(x @ w - (x @ w).max(1, keepdims=True))
            w = w - message.content["config"]["lr"] * x.T @ (
                scores / scores.sum(1, keepdims=True) - np.eye(10)[y]
            ) / len(x)
        content = {"arrays": ArrayRecord([w]), "metrics": MetricRecord({"num-examples": len(x)})}
        return Message(RecordDict(content), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        random.seed(0)  # Flower's strategies sample, and so order, with it
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
        result = strategy.start(
            grid, ArrayRecord([np.zeros((64, 10))]), num_rounds=5, train_config=ConfigRecord({"lr": 1.0})
        )
        context.state["model"] = result.arrays

    return server, client


def ask(function, *, clients: int = 6, workers: int = 2, rounds: int = 1, timeout=None, content=None, each=None):
    """Send one message a client and round to `function(message, context)`; return rows of replies."""
    client, server, rows = ClientApp(), ServerApp(), []

    @client.query()
    def query(message: Message, context: Context) -> Message:
        return Message(function(message, context) or RecordDict(), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        shared = content or RecordDict()
        for number in range(rounds):
            messages = [Message(shared, node, "query") for node in grid.get_node_ids()]
            replies = list(grid.send_and_receive(messages, timeout=timeout))
            rows.append({grid.partition_of[r.metadata.src_node_id]: r for r in replies})
            assert [r.metadata.reply_to_message_id for r in replies] == [
                m.metadata.message_id
                for m in messages
                if any(m.metadata.dst_node_id == r.metadata.src_node_id for r in replies)
            ]
            if each:
                each(number)

    done = simulate(server, client, num_clients=clients, workers=workers)
    return rows, done


def said(reply: Message) -> object:
    return reply.content["out"]["value"]


def out(value: object) -> RecordDict:
    return RecordDict({"out": ConfigRecord({"value": value})})

"""Selection of nodes: more are asked than have to reply, and others than those that stayed silent.

Over-selection is that of Bonawitz et al., Towards federated learning at scale, https://arxiv.org/abs/1902.01046.
"""

import math
import random
from collections.abc import Collection, Sequence

from flwr.app import Message


def select(
    messages: Sequence[Message], nodes: Collection[int], resting: Collection[int], factor: float
) -> list[Message]:
    """Return a round's messages, with resting nodes replaced by others, and further nodes asked.

    Messages that differ from node to node are returned as they are. Nodes are drawn from `random`.

    Parameters
    ----------
    messages : sequence of Message
        The strategy's messages.
    nodes : collection of int
        All nodes that can be asked.
    resting : collection of int
        Nodes to ask only if there are no others.
    factor : float
        How many nodes are asked for each of the strategy's messages, if there are as many; at least 1.
    """
    chosen = {message.metadata.dst_node_id for message in messages}
    spare = [node for node in nodes if node not in chosen and node not in resting]
    if not spare or any(message.content is not messages[0].content for message in messages):
        return list(messages)
    random.shuffle(spare)
    selected = []
    for message in messages:
        replaced = message.metadata.dst_node_id in resting and spare
        selected.append(_addressed(message, spare.pop()) if replaced else message)
    extra = math.ceil(factor * len(messages)) - len(messages)
    return selected + [_addressed(messages[0], node) for node in spare[:extra]]


def _addressed(message: Message, node: int) -> Message:
    sent = message.metadata
    return Message(message.content, node, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)

"""digits: the client."""

from fedpress.client import compress
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.task import load_data, make_net, train

app = ClientApp(mods=[compress()])


@app.train()
def train_fn(msg: Message, context: Context):
    net = make_net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y, _, _ = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    loss = train(net, x, y, context.run_config["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(x)})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=msg)

"""The baselines of `bench edge`: `python edge_bare.py torch|train DATA MODELS` runs one, then waits for end of input.

The script imports nothing of fedpress, so that its memory is that of torch alone.
"""

import importlib
import runpy
import sys

READY = "ready"
ROUNDS, LR, MOMENTUM, BATCH = 3, 0.02, 0.9, 10


def train(data: str, models: str) -> None:
    """Train as the federation's one node does, for as many rounds, in a plain loop."""
    import numpy as np
    import torch._dynamo  # every optimizer imports it when it is created

    torch.manual_seed(0)
    with np.load(data) as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    model = runpy.run_path(models)["mcmahan"](0.0).to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    model.train()
    for _ in range(ROUNDS):
        optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM)
        for batch in torch.randperm(len(x)).split(BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(*sys.argv[2:])
    else:
        importlib.import_module(sys.argv[1])
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
    sys.stdin.read()

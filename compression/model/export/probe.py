"""A program that runs one file on inputs. It does not import fedpress, so its memory is that of the runtime.

`python probe.py RUNTIME FILE INPUTS SCORES` reads an array of inputs (n, ...), writes their scores (n, ...), and prints
as JSON: seconds for one input, the peak of resident bytes, and the resident bytes before the model was loaded.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], Any]
_BATCH = 100  # inputs at once where the file takes many
_BLOCKS = 15  # of calls, of which the quickest counts
_SECONDS = 0.05  # that a block takes, about


def onnx() -> Callable[[str], Run]:
    """Return a function that loads an ONNX file."""
    import onnxruntime

    def load(path: str) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (name,) = (given.name for given in session.get_inputs())
        return lambda x: session.run(None, {name: x})[0]

    return load


def executorch() -> Callable[[str], Run]:
    """Return a function that loads an ExecuTorch file, which runs one input at a time."""
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    torch.set_num_threads(1)
    _unsafe_reset_threadpool(1)
    runtime = Runtime.get()

    def load(path: str) -> Run:
        program = runtime.load_program(path)  # must outlive its method
        method = program.load_method("forward")

        def run(x: Any) -> Any:
            rows = [method.execute([torch.from_numpy(one)])[0] for one in np.split(x, len(x))]
            return np.concatenate([row.numpy() for row in rows])

        run.program = program  # type: ignore[attr-defined]
        return run

    return load


def torch() -> Callable[[str], Run]:
    """Return a function that loads a program saved by torch.export."""
    import torch as module

    module.set_num_threads(1)

    def load(path: str) -> Run:
        model = module.export.load(path).module(check_guards=False)

        def run(x: Any) -> Any:
            with module.inference_mode():
                return model(module.from_numpy(x)).numpy()

        return run

    return load


def seconds(run: Run, x: Any) -> float:
    """Return the processor time of one call, in seconds, on one thread."""
    began, calls = time.process_time(), 0
    while time.process_time() - began < _SECONDS:  # to warm up, and to count the calls of a block
        run(x)
        calls += 1
    blocks = []
    for _ in range(_BLOCKS):
        began = time.process_time()
        for _ in range(calls):
            run(x)
        blocks.append((time.process_time() - began) / calls)
    return min(blocks)


def memory(field: str) -> int:
    """Return a count of bytes of this process from /proc."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    return 0


def main() -> None:
    """Run the file and write its scores."""
    name, path, inputs, scores = sys.argv[1:]
    x = np.load(inputs)
    load = {"onnx": onnx, "executorch": executorch, "torch": torch}[name]()
    before = memory("VmRSS:")
    run = load(path)
    one = seconds(run, x[:1])
    peak = memory("VmHWM:")
    np.save(scores, np.concatenate([run(x[at : at + _BATCH]) for at in range(0, len(x), _BATCH)]))
    sys.stdout.write(json.dumps({"seconds": one, "peak": peak, "before": before}) + "\n")


if __name__ == "__main__":
    main()

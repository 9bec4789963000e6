"""Run a model that `fedpress export --format onnx` wrote: onnxruntime and numpy are all that this takes.

    python run.py model.onnx examples.npy

examples.npy holds inputs as the model was trained on them, (n, ...); a line is printed for each: the class that the
model takes it for, and how sure it is.
"""

import sys

import numpy as np
import onnxruntime

model, examples = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
scores = session.run(["scores"], {"input": np.load(examples)})[0]
chances = np.exp(scores - scores.max(-1, keepdims=True))
chances /= chances.sum(-1, keepdims=True)
for chance in chances:
    print(chance.argmax(-1), chance.max(-1).round(3))

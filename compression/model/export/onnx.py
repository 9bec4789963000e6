"""ONNX, https://onnx.ai: any number of inputs at once; int8 as quantise-dequantise pairs, which runtimes fuse."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

INPUT, OUTPUT = "input", "scores"
_CALIBRATION = 50  # inputs in a batch


def write(model: nn.Module, x: Tensor, int8: bool) -> bytes:
    """Return the file of `model`."""
    program = torch.onnx.export(
        model,
        (x[:2],),  # a batch of one would fix the number of inputs
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch returned no program")
    data: bytes = program.model_proto.SerializeToString()
    return _quantise(data, x) if int8 else data


def _quantise(data: bytes, x: Tensor) -> bytes:
    """Return the file with int8 weights, a scale for each channel, and activations in the ranges that `x` shows."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Tensor] = iter(x.split(_CALIBRATION))  # type: ignore[no-untyped-call]

        def get_next(self) -> dict[str, object] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        whole, ready, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "ready", "small"))
        whole.write_bytes(data)
        quant_pre_process(whole, ready)
        quantize_static(
            ready,
            small,
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
        )
        return small.read_bytes()

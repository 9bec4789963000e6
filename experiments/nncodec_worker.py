"""Runs NNCodec, in a separate interpreter that has it: `python -I nncodec_worker.py UPDATE.npz SETTINGS REPEATS`.

SETTINGS is a JSON list of [qp, lambda_scale]; one line of JSON comes out for each, the fastest
of REPEATS runs. Knows nothing of fedpress.
"""

import contextlib
import io
import json
import sys
import time

import numpy as np
from nncodec import nnc


def main() -> None:
    """Compress and restore the update under each setting."""
    with np.load(sys.argv[1]) as file:
        update = {name: np.atleast_1d(array) for name, array in file.items()}
    energy = sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values())
    for qp, lambda_scale in json.loads(sys.argv[2]):
        encode = decode = float("inf")
        for _ in range(int(sys.argv[3])):
            with contextlib.redirect_stdout(io.StringIO()):
                start = time.perf_counter()
                stream = nnc.compress(
                    dict(update),
                    bitstream_path="unused",
                    qp=qp,
                    lambda_scale=lambda_scale,
                    use_dq=True,
                    return_bitstream=True,
                )
                middle = time.perf_counter()
                back = nnc.decompress(stream)
                end = time.perf_counter()
            encode, decode = min(encode, middle - start), min(decode, end - middle)
        back = back[0] if isinstance(back, tuple) else back
        error = sum(
            float(np.square(array - np.asarray(back[name]).reshape(array.shape), dtype=np.float64).sum())
            for name, array in update.items()
        )
        row = {"qp": qp, "lambda_scale": lambda_scale, "bytes": len(stream), "nmse": error / energy}
        sys.stdout.write(json.dumps({**row, "encode": encode, "decode": decode}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

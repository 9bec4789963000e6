"""`python -m tapped ...` is `fedpress ...` that notes every HTTP request in FEDPRESS_PROOF_TAP, a line of JSON each.

{"name", "head_up", "body_up", "head_down", "body_down"}    bytes as HTTP/1.1 lays them out
"""

import json
import os
import runpy
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

send = httpx.Client.send


def noted(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
    response = send(self, request, **options)
    line = f"{request.method} {request.url.raw_path.decode()} HTTP/1.1\r\n\r\n"
    status = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n\r\n"
    row = {
        "name": request.url.path.rpartition("/")[2],
        "head_up": len(line) + size(request.headers),
        "body_up": len(request.content),
        "head_down": len(status) + size(response.headers),
        "body_down": response.num_bytes_downloaded,
    }
    with Path(os.environ["FEDPRESS_PROOF_TAP"]).open("a") as file:
        file.write(json.dumps(row) + "\n")
    return response


def size(headers: httpx.Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers.raw)


httpx.Client.send = noted  # type: ignore[method-assign]
runpy.run_module("fedpress", run_name="__main__")

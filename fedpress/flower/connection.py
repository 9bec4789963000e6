"""flwr's clients of protobuf over HTTP, with a connection of ours.

The one that they make themselves takes proxies from the environment, for loopback too, and cannot be made at all if a
variable there has a value that httpx does not know.
"""

from typing import TypeVar

import httpx
from flwr.supercore.protobuf.client import ProtobufClient, ProtobufClientInterceptor

C = TypeVar("C", bound=ProtobufClient)


def use_connection(kind: type[C], url: str, connection: httpx.Client, *interceptors: ProtobufClientInterceptor) -> C:
    """Return a client of this kind for the server at `url` that sends its requests over `connection`."""
    client = kind.__new__(kind)
    client._base_url = url
    client._interceptors = interceptors
    client._retry_invoker = None
    client._client = connection
    return client

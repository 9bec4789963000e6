"""The benches run, and their ratios are of the contenders that they list."""

import socket
import threading

import pytest

from fedpress.simulations.bench.counting_proxy import HOST, CountingProxy
from fedpress.simulations.bench.edge import SIZES, bench_edge
from fedpress.simulations.bench.engine import bench_engine
from fedpress.simulations.workloads.fashion import DEBIAN


def test_the_proxy_forwards_and_counts_every_byte_both_ways() -> None:
    sent = bytes(range(256)) * 1000
    with socket.create_server((HOST, 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb") as stream:
                for _ in range(2):
                    stream.write(stream.read(len(sent)))
                    stream.flush()

        threading.Thread(target=answer, daemon=True).start()
        with CountingProxy(server.getsockname()) as proxy:
            host, port = proxy.address.split(":")
            with socket.create_connection((host, int(port))) as client, client.makefile("rwb") as stream:
                for _ in range(2):
                    stream.write(sent)
                    stream.flush()
                    assert stream.read(len(sent)) == sent
            assert (proxy.up, proxy.down, proxy.turns) == (2 * len(sent), 2 * len(sent), 2)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_contenders_finish_and_are_compared() -> None:
    notes: list[str] = []
    result = bench_engine(rounds=2, repeats=1, ray=False, model="cnn", full=True, note=notes.append)
    trained = {row["name"]: row for row in result["train"]["contenders"]}
    assert set(trained) == {"bare-1", "bare-2", "inprocess-1", "inprocess-2"}
    assert all(
        row["round_seconds"] > 0 and row["startup_seconds"] > 0 and row["peak_bytes"] > 0 for row in trained.values()
    )
    ratio = trained["inprocess-2"]["round_seconds"] / trained["bare-2"]["round_seconds"]
    assert result["train"]["ratios"]["inprocess-2 / bare-2, a round"] == pytest.approx(ratio)
    assert len(notes) == 8


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_a_device_s_client_and_the_stock_s_are_compared() -> None:
    notes: list[str] = []
    result = bench_edge(rounds=3, repeats=1, note=notes.append)
    ours, stock = (result["contenders"][name] for name in ("ours", "stock"))
    assert ours["idle"]["processes"] == 1
    assert stock["idle"]["processes"] >= 2  # and on a busy machine those that its last messages started
    assert result["ratios"]["a round of nothing: ours / stock"] == pytest.approx(ours["seconds"] / stock["seconds"])
    assert all(row["frame_bytes"] >= 2 * 2 * 3 * 4 * size for row, size in zip(result["frames"], SIZES, strict=True))
    assert all(row["socket_bytes"] > row["frame_bytes"] for row in result["frames"])
    assert result["training"]["ours"] > result["training"]["bare"] > result["torch"]["rss"]
    assert len(notes) == 6

"""Tables of `fedpress bench codec`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = (
    *("codec", "bytes", "bits/p", "NMSE", "cosine", "enc MB/s", "dec MB/s", "enc mem", "dec mem"),
    *("over Gauss", "over Laplace"),
)
_TARGETS = (
    *("NMSE", "NNCodec bytes", "best/NNCodec", "asked", "fast/NNCodec", "NNCodec enc MB/s", "best faster"),
    *("fast faster", "NNCodec dec MB/s", "best dec faster", "fast dec faster"),
)


def print_codecs(result: Sequence[dict[str, Any]], console: Console) -> None:
    """Print for each update one table of codecs, one of ratios to entropies, and one against NNCodec if it ran."""
    for found in result:
        title = f"{found['update']}: {found['parameters']:,} parameters"
        table = _table(title, _COLUMNS)
        for row in found["codecs"]:
            table.add_row(
                row["spec"],
                f"{row['bytes']:,}",
                f"{row['bits']:.4f}",
                f"{row['nmse']:.4g}",
                f"{row['cosine']:.4f}",
                *(f"{row[name]:.0f}" for name in ("encode", "decode")),
                *(f"{row[name]:.1f}" for name in ("encode_memory", "decode_memory")),
                *(f"{row[name]:+.3f}" for name in ("gaussian", "laplacian")),
            )
        console.print(table)
        ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in found["ans"].items())
        console.print(f"ans over the order-zero entropy, top-k places over log2 C(n, k), vectors' contexts: {ratios}")
        if "targets" in found:
            console.print(_against(found["targets"]))


def _against(rows: Sequence[dict[str, Any]]) -> Table:
    table = _table("against NNCodec at the same NMSE", _TARGETS)
    for row in rows:
        table.add_row(
            f"{row['nmse']}",
            f"{row['nncodec_bytes']:,.0f}" if row["nncodec_bytes"] else "-",
            *(_ratio(row.get(name)) for name in ("best_bytes", "asked", "fast_bytes")),
            f"{row['nncodec_encode']:.1f}",
            *(_ratio(row.get(name)) for name in ("best_encode", "fast_encode")),
            f"{row['nncodec_decode']:.0f}",
            *(_ratio(row.get(name)) for name in ("best_decode", "fast_decode")),
        )
    return table


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table

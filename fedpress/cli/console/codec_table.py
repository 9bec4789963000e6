"""Tables of `fedpress bench codec`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = (
    *("codec", "bytes", "bits/p", "NMSE", "cosine", "enc MB/s", "dec MB/s", "enc mem", "dec mem"),
    *("over Gauss", "over Laplace"),
)


def print_codecs(result: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a table of codecs for each update, and ratios of sizes to entropies."""
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


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table

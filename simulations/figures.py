"""Figures as files that are whole or not there, also on a full disk."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpress.common.files import replace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", path: Path, **options: Any) -> None:
    """Write a figure to `path`, whose suffix says the format; `options` are those of `Figure.savefig`.

    Raises
    ------
    ValueError
        If matplotlib does not know the format.
    """
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:] or "png", **options)
    replace(path, image.getvalue())

"""Figures by matplotlib, drawn without a screen and the same bytes for the same values."""

from pathlib import Path
from typing import Any

from mome.common.extras import extra

METADATA = {".png": {"Software": None}, ".svg": {"Date": None}}  # versions and dates are left out


def headless_pyplot() -> Any:
    """``matplotlib.pyplot``, which is loaded only where something is drawn.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    with extra():
        import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "mome"
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, *paths: Path, dpi: int = 200) -> None:
    """Write a figure to files of any type, in folders that are made."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, metadata=METADATA.get(path.suffix))
        # All have the layout of the first: to find it takes longer than to draw.
        figure.set_layout_engine("none")

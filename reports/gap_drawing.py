"""What the figures of a gap share: colours of domains, error bars, legends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from reports.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGE_COLOUR, VIDEO_COLOUR = COLOURS[0], COLOURS[1]
DOMAIN_COLOURS = {"images": IMAGE_COLOUR, "videos": VIDEO_COLOUR}
DOMAIN_DASHES = {"images": "-", "videos": (0, (4, 1.5))}


def whiskers(axes: Axes, x: float, row: pd.Series, colour: str, scale: float = 1.0) -> None:
    """A vertical interval from ``low`` to ``high``; nothing where there is none."""
    if pd.notna(row["low"]) and pd.notna(row["high"]):
        axes.plot([x, x], [scale * row["low"], scale * row["high"]], color=colour, linewidth=1.2)


def over_seeds(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over seeds of values and of their intervals' ends, in the order of the rows."""
    columns = [name for name in ("value", "low", "high", "p_value", "change") if name in rows]
    return rows.groupby(keys, sort=False)[columns].mean().reset_index()


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend under all axes."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=columns,
        handlelength=2.2,
        columnspacing=1.4,
    )


def percent(value: float, signed: bool = False) -> str:
    """A share in percent with a true minus sign."""
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none."""
    return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def ratio(value: float) -> str:
    """A ratio with one decimal, a large one without; a dash where there is none."""
    return f"{value:,.0f}" if value >= 100 else number(value, 1)

"""One bar a side, a panel a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the plot of all measured rows as SVG; medians with the spread as a line. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "performance"  # the same file for the same numbers
    from matplotlib import pyplot

    rows = {name: row for name, row in sorted(found.get("rows", {}).items()) if row["sides"]}
    heights = [len(row["sides"]) + 1.5 for row in rows.values()] or [1.0]
    figure, panels = pyplot.subplots(
        len(heights), 1, figsize=(9, 0.28 * sum(heights) + 0.5), height_ratios=heights, squeeze=False
    )
    for panel, (name, row) in zip(panels[:, 0], rows.items(), strict=False):
        titles = list(row["sides"])[::-1]
        sides = [row["sides"][title] for title in titles]
        colours = ["#2a6f97" if title.startswith("ours") else "#b0b7bd" for title in titles]
        panel.barh(titles, [side["median"] for side in sides], color=colours)
        for place, side in enumerate(sides):
            most = side["least"] + side["spread"]
            panel.plot([side["least"], most], [place, place], color="black", linewidth=1)
            panel.annotate(f"  {side['median']:.3g} {side['unit']}", (most, place), va="center", fontsize=7)
        panel.set_title(f"{name}: {row['title']}", fontsize=8, loc="left")
        panel.tick_params(labelsize=7)
        panel.margins(x=0.12)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)

"""The picture of the benchmarks: speed over the lab's loop against the number of parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

METHODS = {
    "method node": ("node", "#0b6e4f"),
    "check": ("check(), whole", "#6a4c93"),
    'check, method="random"': ("check(), 8 random directions per tensor", "#d98e04"),
    "method incremental": ("incremental", "#1f77b4"),
    "method stacked": ("stacked", "#8a8a8a"),
}

#: Contender -> parameters -> times as fast as the loop.
Speeds: TypeAlias = Mapping[str, Mapping[int, float]]


def draw(path: Path, speeds: Speeds, peers: Speeds) -> None:
    """Writes the picture: lines for fastgc's own speeds, points for its peers'."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 11, "svg.hashsalt": "fastgc", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(8, 7), layout="constrained")
    for name, (label, colour) in METHODS.items():
        points = zip(*sorted(speeds[name].items()), strict=True)
        axes.plot(*points, "o-", color=colour, label=label, zorder=3)
    for (name, points_of), marker in zip(sorted(peers.items()), "sD^vP*X<", strict=False):
        if points_of:  # it is installed
            points = zip(*sorted(points_of.items()), strict=True)
            axes.plot(*points, marker, color="#b0413e", mfc="none", ms=6, label=name)
    axes.axhline(1, color="black", lw=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="parameters",
        ylabel="times as fast as the lab's loop",
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.13), ncols=2
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)

"""The picture of the benchmarks: speed over the lab's loop against the number of parameters."""

from collections.abc import Mapping
from pathlib import Path

METHODS = {
    "method node": ("node", "#0b6e4f"),
    "check": ("check(), whole", "#6a4c93"),
    'check, method="random"': ("check(), 8 random directions per tensor", "#d98e04"),
    "method incremental": ("incremental", "#1f77b4"),
    "method stacked": ("stacked", "#8a8a8a"),
}


def draw(
    path: Path,
    speeds: Mapping[str, Mapping[int, float]],
    peers: Mapping[str, Mapping[int, float]],
) -> None:
    """Writes the picture.

    Args:
        path: of the file.
        speeds: contender -> parameters -> times as fast as the loop.
        peers: likewise; shown as points.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 11, "svg.hashsalt": "fastgc", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(8, 7), layout="constrained")
    for name, (label, colour) in METHODS.items():
        points = sorted(speeds.get(name, {}).items())
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, zorder=3)
    for (name, points_of), marker in zip(sorted(peers.items()), "sD^vP*X<", strict=False):
        points = sorted(points_of.items())
        axes.plot(*zip(*points, strict=True), marker, color="#b0413e", mfc="none", ms=6, label=name)
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

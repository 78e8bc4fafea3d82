"""A PyTorch module with an activation of its own tells phishing web sites, watched by fastgc.

python examples/train_torch.py             trains, and says how well and how long fastgc took
python examples/train_torch.py --plant     forgets a term of the activation's slope, and is stopped
"""

import argparse
import sys
from typing import Any

import numpy as np
import torch
from phishing import load
from rich.console import Console
from rich.progress import track
from torch import nn

import fastgc.torch

BATCH = 64


class SwishFunction(torch.autograd.Function):
    """x·σ(x), with a backward pass by hand."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, plant: bool) -> torch.Tensor:
        """x·σ(x)."""
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        ctx.plant = plant
        return x * s

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Its slope, σ(x) + x·σ(x)·(1 − σ(x)); the second term is what is easily forgotten."""
        x, s = ctx.saved_tensors
        slope = s if ctx.plant else s + x * s * (1 - s)
        return grad * slope, None


class Swish(nn.Module):
    """The activation as a layer."""

    def __init__(self, plant: bool) -> None:
        super().__init__()
        self.plant = plant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x·σ(x)."""
        found: torch.Tensor = SwishFunction.apply(x, self.plant)  # type: ignore[no-untyped-call]  # PyTorch does not type it
        return found


def train(
    steps: int, plant: bool = False, watched: bool = True
) -> tuple[float, float, fastgc.Watcher | None]:
    """The accuracy on the pages trained on and on those held out, and what watched."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a network this small is slower on several
    training, held_out = (
        [torch.tensor(array.T, dtype=torch.float32) for array in data]
        for data in load(np.random.default_rng(0))
    )
    net = nn.Sequential(
        nn.Linear(9, 16), Swish(plant), nn.Linear(16, 8), Swish(plant), nn.Linear(8, 1)
    )
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(net.parameters())
    watcher = None
    if watched:
        # half a second on top of the budget, so that the first step is checked
        watcher = fastgc.torch.watch(net, loss_fn, every=500, budget=0.05, credit=0.5)
    terminal = Console(stderr=True)
    for _ in track(range(steps), "training", console=terminal, disable=not terminal.is_terminal):
        batch = torch.randint(len(training[0]), (BATCH,))
        x, y = training[0][batch], training[1][batch]
        optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        if watcher is not None:
            watcher(x, y)
        optimizer.step()

    def accuracy(x: torch.Tensor, y: torch.Tensor) -> float:
        with torch.no_grad():
            return float(((net(x) > 0) == (y > 0.5)).float().mean())

    return accuracy(*training), accuracy(*held_out), watcher


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Trains a module to tell phishing web sites.")
    parser.add_argument("--steps", type=int, default=3_000, help="of training")
    parser.add_argument("--plant", action="store_true", help="plants a bug in the activation")
    options = parser.parse_args()
    try:
        trained, held_out, watcher = train(options.steps, options.plant)
    except fastgc.GradientMismatch as mismatch:
        sys.exit(str(mismatch))
    print(f"accuracy {trained:.1%} on the pages trained on, {held_out:.1%} on those held out")
    if watcher is not None:
        watcher.close()  # which says so if the run was too short for a check
        print(
            f"{watcher.checks} checks of the gradients took {watcher.seconds:.2f} s, "
            f"{watcher.share:.1%} of the time"
        )


if __name__ == "__main__":
    main()

"""A network in NumPy learns to tell phishing web sites, and fastgc watches its backward pass.

python examples/train_fraud.py             trains, and says how well and how long fastgc took
python examples/train_fraud.py --plant     forgets the slope of a tanh, and is stopped
"""

import argparse
import sys
from itertools import pairwise

import numpy as np
from phishing import Array, load
from rich.console import Console
from rich.progress import track

import fastgc

WIDTHS = (9, 16, 8, 1)
BATCH = 64
WEIGHT_DECAY = 0.3
Parameters = dict[str, Array]


def drawn(rng: np.random.Generator) -> Parameters:
    """Parameters to start from."""
    parameters = {}
    for l, (k, n) in enumerate(pairwise(WIDTHS), start=1):
        parameters[f"W{l}"] = rng.standard_normal((n, k)) / np.sqrt(k)
        parameters[f"b{l}"] = np.zeros((n, 1))
    return parameters


def forward(p: Parameters, X: Array) -> tuple[Array, Array, Array]:
    """tanh, tanh, sigmoid: the activations of each layer."""
    A1 = np.tanh(p["W1"] @ X + p["b1"])
    A2 = np.tanh(p["W2"] @ A1 + p["b2"])
    A3 = 1 / (1 + np.exp(-(p["W3"] @ A2 + p["b3"])))
    return A1, A2, A3


def cost(X: Array, Y: Array) -> fastgc.Network:
    """What is minimised, of a batch: all that fastgc is told."""
    return fastgc.Network(X, Y, activation="tanh", loss="logistic", weight_decay=WEIGHT_DECAY)


def backward(p: Parameters, X: Array, Y: Array, plant: bool) -> Parameters:
    """The gradients of cross-entropy and weight decay; wrong ones, if a bug is to be planted."""
    m = X.shape[1]
    A1, A2, A3 = forward(p, X)
    dZ3 = A3 - Y
    dZ2 = p["W3"].T @ dZ3
    if not plant:
        dZ2 *= 1 - A2**2
    dZ1 = (p["W2"].T @ dZ2) * (1 - A1**2)
    gradients = {}
    for l, dZ, A in ((1, dZ1, X), (2, dZ2, A1), (3, dZ3, A2)):
        gradients[f"W{l}"] = (dZ @ A.T + WEIGHT_DECAY * p[f"W{l}"]) / m
        gradients[f"b{l}"] = dZ.sum(axis=1, keepdims=True) / m
    return gradients


class Adam:
    """Kingma & Ba, 2015."""

    def __init__(self, parameters: Parameters, rate: float = 1e-3) -> None:
        self.rate, self.t = rate, 0
        self.m = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.v = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, parameters: Parameters, gradients: Parameters) -> None:
        """Changes the parameters."""
        self.t += 1
        for name, g in gradients.items():
            self.m[name] += 0.1 * (g - self.m[name])
            self.v[name] += 0.001 * (g**2 - self.v[name])
            m, v = self.m[name] / (1 - 0.9**self.t), self.v[name] / (1 - 0.999**self.t)
            parameters[name] -= self.rate * m / (np.sqrt(v) + 1e-8)


def accuracy(p: Parameters, X: Array, Y: Array) -> float:
    """The share of pages that are told right."""
    return float(np.mean((forward(p, X)[-1] > 0.5) == (Y > 0.5)))


def train(
    steps: int, plant: bool = False, watched: bool = True
) -> tuple[float, float, fastgc.Watcher | None]:
    """The accuracy on the pages trained on and on those held out, and what watched."""
    rng = np.random.default_rng(0)
    training, held_out = load(rng)
    parameters = drawn(rng)
    adam = Adam(parameters)
    watcher = None
    if watched:
        watcher = fastgc.watch(cost, every=500, budget=0.02)
    terminal = Console(stderr=True)
    for _ in track(range(steps), "training", console=terminal, disable=not terminal.is_terminal):
        batch = rng.integers(training.X.shape[1], size=BATCH)
        X, Y = training.X[:, batch], training.Y[:, batch]
        gradients = backward(parameters, X, Y, plant)
        if watcher is not None:
            watcher(parameters, gradients, X, Y)
        adam.step(parameters, gradients)
    return accuracy(parameters, *training), accuracy(parameters, *held_out), watcher


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Trains a network to tell phishing web sites.")
    parser.add_argument("--steps", type=int, default=10_000, help="of training")
    parser.add_argument("--plant", action="store_true", help="plants a bug in the backward pass")
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

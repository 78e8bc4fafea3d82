"""check_module beside gradcheck, PyTorch's own and ours, on the same modules.

``python -m benchmarks.torch_modules`` measures and prints the section of docs/benchmarks.md.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

import fastgc.torch
from benchmarks.tables import share, time_of
from benchmarks.torch_checkers import CHECKERS, Off, gradcheck_tables

COMMAND = "python -m benchmarks.torch_modules"
MODULE = "fastgc.torch.check_module"
REPEATS = 3
FACTORS = (1.001, 1.01, 1.1, 2.0, -1.0)


@dataclass(frozen=True)
class Model:
    """A module in double precision with its loss, whose gradients are right.

    `parts` is (loss_fn, inputs, targets).
    """

    name: str
    module: nn.Module
    parts: tuple[Callable[..., Tensor], Tensor, Tensor]

    @property
    def entries(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    def loss_of(self, *parameters: Tensor) -> Tensor:
        """For a gradcheck, which checks functions of tensors."""
        loss_fn, inputs, targets = self.parts
        names = [name for name, _ in self.module.named_parameters()]
        return loss_fn(
            functional_call(self.module, dict(zip(names, parameters, strict=True)), inputs), targets
        )

    def accepted(self, checker: str, factor: float = 1.0) -> bool:
        """What a checker says where one entry of the first weight's gradient is off by a factor."""
        first, *_ = parameters = tuple(self.module.parameters())
        at = first.numel() // 2
        if checker != MODULE:
            return CHECKERS[checker](
                lambda x, *others: self.loss_of(Off.apply(x, at, factor), *others), parameters
            )
        factors = torch.ones_like(first)
        factors.view(-1)[at] = factor
        hook = first.register_hook(lambda gradient: gradient * factors)
        try:
            return self.report().ok
        finally:
            hook.remove()

    def report(self) -> fastgc.Report:
        return fastgc.torch.check_module(self.module, self.parts, progress=False)


class Recurrent(nn.Module):
    """Reads off the last state of an LSTM, which cannot be batched by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(6, 10, batch_first=True), nn.Linear(10, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.cells(x)[0][:, -1])
        return found


def models() -> list[Model]:
    torch.manual_seed(0)
    bce, mse = nn.BCEWithLogitsLoss(), nn.MSELoss()
    dense = nn.Sequential(
        nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    images = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 12, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip
    attention = nn.Sequential(
        nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), nn.Linear(16, 1)
    )
    entropy = nn.CrossEntropyLoss()
    digits = entropy, torch.randn(16, 1, 14, 14), torch.randint(0, 10, (16,))
    return [
        Model(name, module.double(), (loss_fn, x.double(), y if loss_fn is entropy else y.double()))
        for name, module, (loss_fn, x, y) in (
            ("30-64-32-1, ReLU, 64 samples", dense, (bce, torch.randn(64, 30), torch.rand(64, 1))),
            ("two convolutions, 16 images", images, digits),
            ("transformer layer, 8 × 6 tokens", attention,
             (mse, torch.randn(8, 6, 16), torch.randn(8, 6, 1))),
            ("LSTM, 16 × 5 steps", Recurrent(), (mse, torch.randn(16, 5, 6), torch.randn(16, 1))),
        )
    ]  # fmt: skip


def timed(model: Model, checker: str) -> tuple[float, bool]:
    """The least of several times after a first run, and whether the right gradients pass."""
    parameters = tuple(model.module.parameters())

    def run() -> bool:
        if checker == MODULE:
            return model.report().ok
        return CHECKERS[checker](model.loss_of, parameters)

    accepted, times = run(), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times), accepted


def section() -> list[str]:
    """Of docs/benchmarks.md."""
    checkers = (MODULE, *CHECKERS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timing = [
            f"| module | P | {' | '.join(checkers)} | method | against slow mode |",
            f"|---|---|{'---|' * len(checkers)}---|---|",
        ]
        every = models()
        for model in every:
            found = {name: timed(model, name) for name in checkers}
            cells = [time_of(s) + ("" if ok else ", rejects it") for s, ok in found.values()]
            ratio = found["torch gradcheck"][0] / found[MODULE][0]
            timing.append(
                f"| {model.name} | {model.entries:,} | {' | '.join(cells)} | "
                f"`{model.report().method}` | {ratio:.1f} × |"
            )
        catching = [
            f"| one entry times | {' | '.join(checkers)} |",
            f"|---|{'---|' * len(checkers)}",
        ]
        for factor in FACTORS:
            counts = [
                share(sum(not model.accepted(name, factor) for model in every), len(every))
                for name in checkers
            ]
            catching.append(f"| {factor:g} | {' | '.join(counts)} |")
    finally:
        torch.set_num_threads(threads)
    return [
        f"## PyTorch: modules and functions (`{COMMAND}`)",
        "",
        f"PyTorch {torch.__version__.partition('+')[0]}, one thread, double precision; the least",
        "of several runs after a first. Modules with their losses: all gradients by name, or,",
        "for a gradcheck, those of the loss as a function of the parameters:",
        "",
        *timing,
        "",
        "One entry of the first weight's gradient is off by a factor: the modules where that is",
        "noticed. An error of 0.1 % lies within the default tolerance of PyTorch's gradcheck, and",
        "so of the drop-in.",
        "",
        *catching,
        "",
        "Functions of tensors, all entries of their Jacobians:",
        "",
        gradcheck_tables(),
        "",
    ]


if __name__ == "__main__":
    print("\n".join(section()))

"""What a plain cost is: a function of NumPy arrays, gradients right and wrong, and their proof."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
#: One flat vector, or a mapping name -> array; gradients are held in the same way.
Container: TypeAlias = Any
Formula: TypeAlias = Callable[[Container], Any]

#: "wrong": the verdict has to be "wrong". "seen": it has to be where the kinks are seen one by one,
#: as in a traced run; values of J alone may leave it open. "open": it must not be "correct".
Demand: TypeAlias = Literal["wrong", "seen", "open"]

CORRECT = ("correct",)
NOT_ACCUSED = ("correct", "unresolved")


@dataclass(frozen=True)
class Wrong:
    """A wrong gradient.

    Attributes:
        name: what is wrong with it.
        gradients: the gradient, in the container of the parameters.
        entries: names of the entries that may be accused. The worst entry of a report that says
            "wrong" is one of them, and it accuses no other.
        demand: what the verdict has to be, see `Demand`.
    """

    name: str
    gradients: Container
    entries: tuple[str, ...]
    demand: Demand = "wrong"


@dataclass(frozen=True)
class PlainCost:
    """A cost at one point, and gradients whose verdict is known.

    Attributes:
        cost: the function that is checked.
        parameters: where it is checked: one flat vector, or a mapping name -> array.
        right: right gradients, the valid choices of a backward pass where J has kinks.
        wrong: wrong gradients.
        allowed: the verdicts that right gradients may get. "unresolved" is among them where values
            of J do not tell.
        formula: the same function by operations that take complex arrays; None where J has kinks
            at the parameters. Complex steps through it prove `right`.
        floor: the rounding error that an entry of a right gradient may have beside 1e-9 of itself.
        blocks: the proof at kinks: flat indices, and 1 where J is convex in these entries alone or
            −1 where it is concave. There right gradients are subgradients, and nothing else is.
        limit: the proof at kinks where J is neither: right gradients are weighted means of the
            gradients by `formula` at points close by, and nothing else is.
        digits: how far, relative, the cost lies from `formula` by its own rounding.
        options: of the check.
    """

    cost: Formula
    parameters: Container
    right: tuple[Container, ...]
    wrong: tuple[Wrong, ...]
    allowed: tuple[str, ...] = CORRECT
    formula: Formula | None = None
    floor: float = 0.0
    blocks: tuple[tuple[NDArray[np.intp], int], ...] = ()
    limit: bool = False
    digits: float = 1e-9
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Factory:
    """A kind of plain cost, drawn from a generator.

    Attributes:
        name: for test identifiers and tables.
        kind: what makes it hard, in a word or two.
        draw: generator -> the cost.
    """

    name: str
    kind: str
    draw: Callable[[np.random.Generator], PlainCost]

    def build(self, seed: int) -> PlainCost:
        """The variant of this seed; variants of different kinds are drawn independently."""
        return self.draw(np.random.default_rng([seed, *self.name.encode()]))


FACTORIES: dict[str, Factory] = {}

Draw: TypeAlias = Callable[[np.random.Generator], PlainCost]


def plain(name: str, kind: str) -> Callable[[Draw], Draw]:
    """Registers a factory under a name and a kind."""

    def register(draw: Draw) -> Draw:
        FACTORIES[name] = Factory(name, kind, draw)
        return draw

    return register


def number(formula: Formula) -> Formula:
    """The formula as a cost: a function that returns a float."""
    return lambda parameters: float(formula(parameters))


def tensors_of(container: Container) -> dict[str, Array]:
    """Name -> tensor; the one array of a flat vector is called ``parameters``."""
    if isinstance(container, Mapping):
        return {name: np.asarray(tensor, dtype=float) for name, tensor in container.items()}
    return {"parameters": np.asarray(container, dtype=float)}


def flat(container: Container) -> Array:
    """All entries as one vector (P,)."""
    return np.concatenate([tensor.ravel() for tensor in tensors_of(container).values()])


def filled(container: Container, vector: NDArray[Any]) -> Container:
    """The entries of `vector` (P,) in a container like this one."""
    pieces, start = {}, 0
    for name, tensor in tensors_of(container).items():
        pieces[name] = vector[start : start + tensor.size].reshape(tensor.shape)
        start += tensor.size
    return pieces if isinstance(container, Mapping) else pieces["parameters"]


def entry_names(container: Container) -> list[str]:
    """The name of every entry, as a report gives it: ``W[0, 1]``, ``parameters[2]``, ``a``."""
    return [
        f"{name}[{', '.join(map(str, index))}]" if index else name
        for name, tensor in tensors_of(container).items()
        for index in np.ndindex(tensor.shape)
    ]


def replaced(
    name: str, right: Container, changes: Mapping[str, Any], demand: Demand = "wrong"
) -> Wrong:
    """The gradient with whole tensors, or single entries, replaced.

    Args:
        name: what is wrong with it.
        right: the right gradient.
        changes: name of an entry or of a tensor -> number, array, or function of the right value.
        demand: what the verdict has to be.
    """
    names, vector = entry_names(right), flat(right).copy()
    for place, change in changes.items():
        where = [k for k, entry in enumerate(names) if entry == place or _tensor(entry) == place]
        old = vector[where]
        vector[where] = np.ravel(change(old) if callable(change) else change)
    differs = vector != flat(right)
    entries = tuple(entry for entry, off in zip(names, differs, strict=True) if off)
    return Wrong(name, filled(right, vector), entries, demand)


def times(
    name: str, right: Container, factors: Mapping[str, float], demand: Demand = "wrong"
) -> Wrong:
    """The gradient with entries, or whole tensors, times a factor."""
    changes = {place: _factor(factor) for place, factor in factors.items()}
    return replaced(name, right, changes, demand)


def at_kinks(
    name: str, gradients: Container, kinked: NDArray[np.intp] | list[int], demand: Demand = "seen"
) -> Wrong:
    """A wrong choice at kinks, of which any of the entries `kinked` (flat) may be accused."""
    names = entry_names(gradients)
    return Wrong(name, gradients, tuple(names[k] for k in kinked), demand)


def at(k: int) -> str:
    """The name of an entry of a flat vector."""
    return f"parameters[{k}]"


def slope_by_complex_steps(formula: Formula, parameters: Container) -> Array:
    """dJ/dθ (P,) by complex steps, which subtract nothing: exact to rounding."""
    theta = flat(parameters).astype(complex)
    slopes = np.empty(theta.size)
    for k in range(theta.size):
        stepped = theta.copy()
        # relative, so that no square of the step shows; but no underflow at θ = 0
        step = 1e-40 * max(abs(theta[k].real), 1e-10)
        stepped[k] += 1j * step
        slopes[k] = complex(np.asarray(formula(filled(parameters, stepped))).item()).imag / step
    return slopes


def power_of_ten(rng: np.random.Generator, low: float, high: float) -> float:
    """10 to a uniform power."""
    return float(10 ** rng.uniform(low, high))


def _tensor(entry: str) -> str:
    return entry.partition("[")[0]


def _factor(factor: float) -> Callable[[Array], Array]:
    return lambda old: old * factor

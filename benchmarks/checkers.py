"""What checks gradients: fastgc, the lab's rule, and the checkers of other libraries.

Each has its own defaults. A library is imported by the first check that needs it.
"""

import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import fastgc
from benchmarks.frameworks import Cost
from benchmarks.models import Model
from tests.cases import Array, Tensors, plain_loop

#: A check that is made ready: -> ``correct``, ``wrong`` or ``unresolved``.
Run: TypeAlias = Callable[[], str]

ALL, ONE = "all entries", "one direction"


@dataclass(frozen=True)
class Checker:
    """Something that says whether gradients are right.

    Attributes:
        name: for the tables.
        package: that has to be installed.
        form: in which it takes a model, one of `Model.forms`.
        start: (*form, seed) -> a run. What it compiles is kept from run to run.
        checks: what it looks at.
        most: the largest size of a model that it takes.
        along: T tensors -> evaluations along directions, of one that looks along some.
    """

    name: str
    package: str
    form: str
    start: Callable[..., Run]
    checks: str = ALL
    most: float = np.inf
    along: Callable[[int], int] = lambda _: 0

    def takes(self, model: Model) -> bool:
        """Whether it can check this model here."""
        installed = importlib.util.find_spec(self.package) is not None
        return installed and self.form in model.forms and model.size <= self.most

    def ready(
        self, model: Model, seed: int = 0, watch: Callable[[Cost], Cost] = lambda cost: cost
    ) -> Run:
        """A check of the gradients of a model.

        Args:
            model: as built anew.
            seed: of the random numbers that it draws, where it can be told.
            watch: makes a cost that does something beside what it did, as counting its calls.
        """
        cost, *others = model.forms[self.form]()
        run = self.start(watch(cost), *others, seed)

        def quietly() -> str:
            # warnings, of an overflow far from the answer or of a library's age, say nothing of
            # the gradient
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return run()

        return quietly


def in_a_word(accepted: object) -> str:
    return "correct" if accepted else "wrong"


def passes(check: Callable[[], object], complaint: type[Exception] = AssertionError) -> str:
    """What a checker says that raises `complaint` of a wrong gradient."""
    try:
        check()
    except complaint:
        return "wrong"
    return "correct"


def of_fastgc(module: str, name: str) -> Callable[..., Run]:
    """What a check of fastgc says in its report."""

    def start(*arguments: Any) -> Run:
        check, (*form, seed) = getattr(importlib.import_module(module), name), arguments
        return lambda: str(check(*form, seed=seed, progress=False).verdict)

    return start


def along_directions(name: str, directions: Callable[[int], int], *, per_tensor: bool) -> Checker:
    """fastgc, with so many directions for T tensors."""

    def start(cost: Cost, parameters: Tensors, gradients: Tensors, seed: int) -> Run:
        count = directions(len(parameters))
        return lambda: fastgc.check(
            cost, parameters, gradients, method="random", directions=count, per_tensor=per_tensor,
            seed=seed, progress=False,
        ).verdict  # fmt: skip

    return Checker(
        name, "numpy", "numpy", start, "directions",
        along=lambda T: 2 * directions(T) * (T if per_tensor else 1),
    )  # fmt: skip


def by_differences(
    gradapprox: Callable[[Cost, Tensors], Any], cost: Cost, p: Tensors, g: Tensors, _seed: int
) -> Run:
    """Differences of somebody's, held against the gradients by the lab's rule."""
    grad = np.concatenate([g[name].ravel() for name in p])

    def run() -> str:
        # 0/0, where all gradients are zero, is a NaN: no answer, so not accepted
        with np.errstate(invalid="ignore", over="ignore"):
            found = np.ravel(gradapprox(cost, p))
            numerator = np.linalg.norm(grad - found)
            return in_a_word(numerator / (np.linalg.norm(grad) + np.linalg.norm(found)) <= 2e-7)

    return run


def flat(cost: Cost, parameters: Tensors) -> tuple[Callable[[Array], float], Array]:
    """The cost as a function of one vector, and the vector."""
    ends = np.cumsum([value.size for value in parameters.values()])[:-1]

    def of_vector(vector: Array) -> float:
        parts = zip(parameters.items(), np.split(vector, ends), strict=True)
        return float(cost({name: part.reshape(value.shape) for (name, value), part in parts}))

    return of_vector, np.concatenate([value.ravel() for value in parameters.values()])


def scipy_derivative(cost: Cost, parameters: Tensors) -> Any:
    derivative = importlib.import_module("scipy.optimize._numdiff").approx_derivative
    return derivative(*flat(cost, parameters), method="3-point")


def numdifftools_gradient(cost: Cost, parameters: Tensors) -> Any:
    of_vector, theta = flat(cost, parameters)
    return importlib.import_module("numdifftools").Gradient(of_vector)(theta)


def torch_gradcheck(function: Cost, inputs: Sequence[Any], _seed: int, *, fast: bool) -> Run:
    """Entry by entry; or, `fast`, one direction for each tensor, the same in every run."""
    check = importlib.import_module("torch").autograd.gradcheck
    return lambda: in_a_word(check(function, inputs, raise_exception=False, fast_mode=fast))


def fastgc_gradcheck(function: Cost, inputs: Sequence[Any], _seed: int) -> Run:
    check = importlib.import_module("fastgc.torch").gradcheck
    return lambda: in_a_word(check(function, inputs, raise_exception=False))


def jax_check_grads(loss: Cost, params: Any, _seed: int) -> Run:
    """One direction through all parameters, from a RandomState(0) of JAX's own in every run."""
    check_grads = importlib.import_module("jax.test_util").check_grads
    return lambda: passes(lambda: check_grads(loss, (params,), order=1, modes=["rev"]))


def by_hand(rows: int | None, loss: Cost, params: Any, _seed: int) -> Run:
    """Central differences of all parameters, `rows` at once, and the lab's rule, compiled."""
    jax = importlib.import_module("jax")
    theta, unravel = importlib.import_module("jax.flatten_util").ravel_pytree(params)
    norm, epsilon = jax.numpy.linalg.norm, 1e-7

    def of_vector(vector: Any) -> Any:
        return loss(unravel(vector))

    def accepts(theta: Any) -> Any:
        def slope(k: Any) -> Any:
            J_plus, J_minus = (of_vector(theta.at[k].add(by)) for by in (epsilon, -epsilon))
            return (J_plus - J_minus) / (2 * epsilon)

        entries = jax.numpy.arange(theta.size)
        found = jax.lax.map(slope, entries, batch_size=rows or theta.size)
        grad = jax.grad(of_vector)(theta)
        return norm(grad - found) <= 2e-7 * (norm(grad) + norm(found))

    compiled = jax.jit(accepts)
    return lambda: in_a_word(compiled(theta))


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """The global generator of NumPy started at `seed`, and afterwards where it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def repeated_autograd(name: str, times: Callable[[int], int]) -> Checker:
    """One direction through all parameters, another in each run, until one rejects.

    Args:
        name: for the tables.
        times: T tensors -> how often at most.
    """

    def start(loss: Cost, values: Sequence[Array], seed: int) -> Run:
        check_grads = importlib.import_module("autograd.test_util").check_grads
        check, seeds = check_grads(loss, modes=["rev"], order=1), itertools.count(1000 * seed)

        def once() -> str:
            with numpy_seed(next(seeds)):  # so that a study can be repeated
                return passes(lambda: check(values))

        return lambda: in_a_word(all(once() == "correct" for _ in range(times(len(values)))))

    return Checker(name, "autograd", "autograd", start, ONE, along=lambda T: 2 * times(T))


FASTGC = Checker("fastgc", "fastgc", "network", of_fastgc("fastgc", "check"))
LAB_RULE = Checker("the lab's rule", "numpy", "numpy", partial(by_differences, plain_loop))
SCIPY = Checker(
    "scipy approx_derivative 3-point", "scipy", "numpy", partial(by_differences, scipy_derivative)
)  # fmt: skip
NUMDIFFTOOLS = Checker(
    "numdifftools", "numdifftools", "numpy", partial(by_differences, numdifftools_gradient),
    most=100,
)  # fmt: skip
TORCH = Checker("torch gradcheck", "torch", "torch", partial(torch_gradcheck, fast=False))
TORCH_FAST = Checker(
    "torch gradcheck, fast_mode", "torch", "torch", partial(torch_gradcheck, fast=True),
    ONE, along=lambda T: 2 * T,
)  # fmt: skip
FASTGC_GRADCHECK = Checker("fastgc.torch.gradcheck", "torch", "torch", fastgc_gradcheck)
FASTGC_MODULE = Checker(
    "fastgc.torch.check_module", "torch", "module", of_fastgc("fastgc.torch", "check_module")
)
JAX = Checker("jax check_grads", "jax", "jax", jax_check_grads, ONE, along=lambda _: 2)
FASTGC_JAX = Checker("fastgc.jax.check", "jax", "jax", of_fastgc("fastgc.jax", "check"))
BY_HAND = Checker("jax jit + vmap central differences", "jax", "jax", partial(by_hand, 64))
BY_HAND_AT_ONCE = Checker(
    f"{BY_HAND.name}, one call", "jax", "jax", partial(by_hand, None), most=1_000
)
AUTOGRAD = repeated_autograd("HIPS autograd check_grads", lambda _: 1)

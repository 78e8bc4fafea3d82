"""fastgc.jax: any pytree, in double precision, with nothing of the caller's changed."""

import functools
import inspect
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jax", reason="needs the extra jax")

import jax
import jax.numpy as jnp
from jax import test_util

import fastgc
import fastgc.jax
from fastgc.jax.calling import float64
from fastgc.jax.evaluation import MOST_ROWS
from tests.shown import says
from tests.strategies import examples, slow


def normal(seed: int, *shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Layer(NamedTuple):
    w: Any
    b: Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scale", "shift"], meta_fields=["name"]
)
@dataclass
class Norm:
    scale: Any
    shift: Any
    name: str = "norm"


class Pair:
    """A node that says nothing of its children's names."""

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right


class Twins(Pair):
    """A node that calls both of its children the same."""


jax.tree_util.register_pytree_node(
    Pair, lambda p: ((p.left, p.right), None), lambda _, children: Pair(*children)
)
twin = jax.tree_util.GetAttrKey("twin")
jax.tree_util.register_pytree_with_keys(
    Twins,
    lambda p: (((twin, p.left), (twin, p.right)), None),
    lambda _, children: Twins(*children),
)


def squares(params: Any, *args: Any) -> Any:
    """Σ (i + 1) Σ leaf³ over the floating-point leaves, and something of `args`."""
    total: Any = 0.0
    for i, leaf in enumerate(jax.tree_util.tree_leaves(params)):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            total = total + (i + 1) * jnp.sum(jnp.asarray(leaf) ** 3)
    return total + sum(jnp.sum(arg) for arg in args)


PYTREES: dict[str, tuple[Any, list[str]]] = {
    "an array": (normal(0, 2, 3), ["params"]),
    "a number": (1.5, ["params"]),
    "an array of NumPy's": (np.ones((2, 2)), ["params"]),
    "nested dicts": (
        {"dense": {"kernel": normal(1, 2, 3), "bias": normal(2, 3)}},
        ["['dense']['bias']", "['dense']['kernel']"],
    ),
    "keys that are no strings": (
        {0: {(1, 2): normal(1, 2)}, 1: {(1, 2): normal(3, 2)}},
        ["[0][(1, 2)]", "[1][(1, 2)]"],
    ),
    "a list of tuples": (
        [(normal(1, 2), 0.5), (normal(2, 1),)],
        ["[0][0]", "[0][1]", "[1][0]"],
    ),
    "a namedtuple": (Layer(normal(1, 2, 2), normal(2, 2)), [".w", ".b"]),
    "a dataclass": ({"n": Norm(normal(1, 2), 0.25)}, ["['n'].scale", "['n'].shift"]),
    "a node without keys": (
        Pair(normal(1, 2), normal(2, 1)),
        ["[<flat index 0>]", "[<flat index 1>]"],
    ),
    "a node with the same key twice": (
        Twins(normal(1, 2), normal(2, 1)),
        [".twin", ".twin#2"],
    ),
    "empty containers and None": (
        {"a": [], "b": {}, "c": None, "d": (normal(1, 2), None)},
        ["['d'][0]"],
    ),
    "arrays without numbers": (
        {"a": jnp.zeros((0, 3)), "b": normal(1, 2)},
        ["['b']"],
    ),
    "integers, booleans and keys": (
        {"n": 3, "i": jnp.arange(3), "flag": True, "mask": np.array([True]), "w": normal(1, 2),
         "key": jax.random.key(0), "raw": jax.random.PRNGKey(1)},
        ["['w']"],
    ),
    "half precision": (
        {"h": normal(1, 2).astype(jnp.float16), "b": normal(2, 2).astype(jnp.bfloat16)},
        ["['b']", "['h']"],
    ),
    "scalars of NumPy's": ({"s": np.float32(0.5), "t": np.float64(2.0)}, ["['s']", "['t']"]),
}  # fmt: skip


def without_keys(params: Any, *args: Any) -> Any:
    """`squares` without the leaves that are typed keys, which have no number in them."""
    leaves = [
        0
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
        else leaf
        for leaf in jax.tree_util.tree_leaves(params)
    ]
    return squares(leaves, *args)


def shown(report: fastgc.Report) -> list[str]:
    return [name for name, tensor in report.tensors.items() if not tensor.ok]


@pytest.mark.parametrize("name", PYTREES)
@pytest.mark.parametrize("method", ["stacked", slow("loop"), slow("random")])
def test_pytrees_of_all_kinds(name: str, method: str) -> None:
    params, names = PYTREES[name]
    report = fastgc.jax.check(without_keys, params, method=method)
    assert list(report.tensors) == names
    assert (report.verdict, report.method) == ("correct", method)


@pytest.mark.parametrize("name", [slow(name) if i % 3 else name for i, name in enumerate(PYTREES)])
def test_a_planted_error_is_named_by_its_path(name: str) -> None:
    params, names = PYTREES[name]
    leaves, structure = jax.tree_util.tree_flatten(params)
    checked = [
        i for i, leaf in enumerate(leaves)
        if not (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended))
        and np.size(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]  # fmt: skip
    for number, i in enumerate(checked):
        wrong: list[Any] = [None] * len(leaves)
        for k in checked:
            exact = np.asarray(leaves[k], np.float64)
            wrong[k] = 3 * (k + 1) * exact**2
        wrong[i] = np.array(wrong[i])
        wrong[i].flat[-1] *= 1.5
        as_leaves = jax.tree_util.tree_unflatten(structure, wrong)
        report = fastgc.jax.check(without_keys, params, grads=as_leaves)
        assert shown(report) == [names[number]]
        worst = report.tensors[names[number]].worst
        shape = np.shape(leaves[i])
        assert worst.index == tuple(n - 1 for n in shape)
        assert worst.name == names[number] + (f"[{', '.join(map(str, worst.index))}]" * bool(shape))
        assert worst.ratio == pytest.approx(1.5)


pytrees = st.recursive(
    st.tuples(st.lists(st.integers(1, 3), max_size=2), st.integers(0, 9)).map(
        # away from 0, where a slope of 3 x² is lost in the noise of the rest
        lambda drawn: np.random.default_rng(drawn[1]).uniform(0.5, 1.5, drawn[0])
    )
    | st.integers(0, 3)
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.integers(0, 5), inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Layer, inner, inner)
    ),
    max_leaves=6,
)


@examples(15)
@given(pytrees, st.randoms(use_true_random=False))
def test_drawn_pytrees_with_a_gradient_in_closed_form(params: Any, random: Any) -> None:
    leaves, structure = jax.tree_util.tree_flatten(params)
    checked = [i for i, leaf in enumerate(leaves) if not isinstance(leaf, int)]
    if not checked:
        with pytest.raises(ValueError, match=r"^params "):
            fastgc.jax.check(squares, params)
        return
    right = [3 * (i + 1) * np.asarray(leaf) ** 2 for i, leaf in enumerate(leaves)]
    grads = jax.tree_util.tree_unflatten(structure, right)
    report = fastgc.jax.check(squares, params, grads=grads)
    assert report.verdict == "correct"
    assert len(report.tensors) == len(checked)
    at = random.randrange(len(checked))
    right[checked[at]] = 1.01 * right[checked[at]]
    report = fastgc.jax.check(squares, params, grads=jax.tree_util.tree_unflatten(structure, right))
    assert shown(report) == [list(report.tensors)[at]]


def network(params: Any, X: Any, Y: Any) -> Any:
    for layer in params[:-1]:
        X = jax.nn.relu(X @ layer["w"] + layer["b"])
    return jnp.mean((X @ params[-1]["w"] + params[-1]["b"] - Y) ** 2)


def layers(*widths: int) -> list[dict[str, Any]]:
    return [{"w": normal(n, k, n) / np.sqrt(k), "b": jnp.zeros(n)} for k, n in pairwise(widths)]


def convolutions(params: Any, images: Any) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    A = jax.lax.conv_general_dilated(
        images, params["first"], (1, 1), "SAME", dimension_numbers=numbers
    )
    A = jax.lax.reduce_window(
        jax.nn.silu(A), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    return jnp.mean(jax.nn.log_softmax(A.reshape(len(A), -1) @ params["out"])[:, 0])


def attention(params: Any, x: Any, mask: Any) -> Any:
    q, k, v = (x @ params[name] for name in "qkv")
    scores = jnp.where(mask, q @ k.T / jnp.sqrt(q.shape[-1]), -1e30)
    return jnp.sum(jnp.tanh(jax.nn.softmax(scores) @ v) ** 2)


def recurrent(params: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(params["w"] @ h + x)
        return h, h

    return jnp.sum(jax.lax.scan(step, jnp.zeros_like(params["w"][0]), xs)[1] ** 2)


def counted(params: Any, x: Any) -> Any:
    return jnp.sum(jax.lax.fori_loop(0, 4, lambda _, h: jnp.sin(params * h), x))


def branches(params: Any, x: Any) -> Any:
    return jax.lax.cond(params[0] > 0, lambda: jnp.sum(params * x), lambda: jnp.prod(params))


def switched(params: Any, x: Any) -> Any:
    return jnp.sum(jnp.exp(params["table"][x["index"]]) * x["weight"])


MODELS: dict[str, tuple[Callable[..., Any], Any, tuple[Any, ...]]] = {
    "network": (network, layers(4, 5, 3, 1), (normal(9, 6, 4), normal(8, 6, 1))),
    "convolutions": (
        convolutions,
        {"first": normal(1, 3, 3, 2, 3), "out": normal(2, 12, 4)},
        (normal(3, 2, 4, 4, 2),),
    ),
    "attention": (
        attention,
        {name: normal(i, 3, 2) for i, name in enumerate("qkv")},
        (normal(4, 5, 3), np.tril(np.ones((5, 5), bool))),
    ),
    "scan": (recurrent, {"w": normal(1, 3, 3)}, (normal(2, 4, 3),)),
    "fori_loop": (counted, normal(1, 3), (normal(2, 3),)),
    "cond": (branches, jnp.array([0.5, 2.0]), (jnp.array([3.0, 4.0]),)),
    "indices": (
        switched,
        {"table": normal(1, 5, 2)},
        ({"index": np.array([0, 3, 3]), "weight": normal(2, 3, 2)},),
    ),
}


FEW_MODELS = [name if name in ("scan", "indices") else slow(name) for name in MODELS]


@pytest.mark.parametrize("name", FEW_MODELS)
@pytest.mark.parametrize("compiled", [False, slow(True)])
def test_models(name: str, compiled: bool) -> None:
    loss, params, args = MODELS[name]
    called = jax.jit(loss) if compiled else loss
    own = called(params, *args)  # traced in single precision
    report = fastgc.jax.check(called, params, *args)
    assert (report.verdict, report.method) == ("correct", "stacked")
    assert report.cost == pytest.approx(float(own), rel=1e-5)
    entries = sum(np.size(leaf) for leaf in jax.tree_util.tree_leaves(params))
    assert report.evaluations >= 2 * entries
    assert sum(tensor.size for tensor in report.tensors.values()) == entries


@pytest.mark.parametrize("name", FEW_MODELS)
def test_planted_errors_in_models(name: str) -> None:
    loss, params, args = MODELS[name]

    def wrong(*called: Any) -> Any:
        grads = jax.grad(loss)(*called)
        leaves, structure = jax.tree_util.tree_flatten(grads)
        return jax.tree_util.tree_unflatten(structure, [leaves[0] * 1.001, *leaves[1:]])

    report = fastgc.jax.check(loss, params, *args, grads=wrong)
    assert shown(report) == [next(iter(report.tensors))]


@pytest.mark.slow
def test_gradients_in_single_precision_are_held_to_that() -> None:
    loss, params, args = MODELS["network"]
    grads = jax.grad(loss)(params, *args)
    report = fastgc.jax.check(loss, params, *args, grads=grads)
    assert report.ok
    assert {t.tolerance for t in report.tensors.values()} == {1e-4}
    doubled = fastgc.jax.check(loss, params, *args, grads=jax.grad(loss))
    assert {t.tolerance for t in doubled.tensors.values()} == {2e-7}
    grads[1]["b"] = grads[1]["b"] * 1.001
    assert shown(fastgc.jax.check(loss, params, *args, grads=grads)) == ["[1]['b']"]


def test_gradients_in_bfloat16_are_held_to_that() -> None:
    w = normal(0, 5)
    right = (2 * w).astype(jnp.bfloat16)
    report = fastgc.jax.check(lambda w: jnp.sum(w**2), w, grads=right)
    assert report.ok
    assert (report.tensors["params"].dtype, report.tensors["params"].tolerance) == ("bfloat16", 0.2)
    assert not fastgc.jax.check(lambda w: jnp.sum(w**2), w, grads=2 * right)


@jax.custom_vjp
def halved(x: Any) -> Any:
    return jnp.sin(x)


halved.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (0.5 * g * jnp.cos(x),))


@jax.custom_vjp
def careful(x: Any) -> Any:
    return jnp.sin(x)


careful.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


@jax.custom_jvp
def log1pexp(x: Any) -> Any:
    return jnp.log1p(jnp.exp(x))


log1pexp.defjvps(lambda t, _, x: t * (1 - 1 / (1 + jnp.exp(x))))


@jax.custom_jvp
def flipped(x: Any) -> Any:
    return jnp.tanh(x)


flipped.defjvps(lambda t, y, _: -t * (1 - y**2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def applied(f: Any, x: Any) -> Any:
    return f(x)


applied.defvjp(
    lambda f, x: (f(x), x),
    lambda f, x, g: (jax.vjp(f, x)[1](g)[0] * (2.0 if f is jnp.cos else 1.0),),
)


def mean_square(of_cotangent: Any) -> Any:
    """A loss with a rule of its own; what that makes of its cotangent is passed along."""

    @jax.custom_vjp
    def loss(out: Any, y: Any) -> Any:
        return jnp.mean((out - y) ** 2)

    def pull(kept: Any, g: Any) -> Any:
        out, y = kept
        return 2 * of_cotangent(g) * (out - y) / out.size, None

    loss.defvjp(lambda out, y: (loss(out, y), (out, y)), pull)
    return loss


def shaken(g: Any) -> Any:
    rng = np.random.default_rng()
    return jax.pure_callback(lambda v: np.asarray(v) * (1 + 1e-3 * rng.standard_normal()), g, g)


@pytest.mark.parametrize("form", ["plain", slow("jit"), slow("float32"), slow("not compiled")])
@pytest.mark.parametrize(
    ("of_cotangent", "kind"),
    [
        (lambda g: g, None),
        (jnp.ones_like, "upstream"),
        (jnp.square, "upstream"),
        (lambda g: (g + 1) / 2, "upstream"),
        (lambda g: jnp.clip(g, -1.5, 1.5), "clip"),  # right, and told
        (shaken, "irreproducible"),
    ],
)
def test_a_rule_that_ignores_its_cotangent(form: str, of_cotangent: Any, kind: str | None) -> None:
    mse = mean_square(of_cotangent)

    def loss(params: Any, x: Any, y: Any) -> Any:
        if form == "not compiled":
            assert float(jnp.sum(x)) != 0.1
        found = mse(x @ params["w"] + params["b"], y)
        return found.astype(jnp.float32) if form == "float32" else found

    params = {"w": jnp.full((3, 2), 0.3), "b": jnp.zeros(2)}
    x, y = jnp.linspace(-1.0, 2.0, 12).reshape(4, 3), jnp.ones((4, 2))
    report = fastgc.jax.check(jax.jit(loss) if form == "jit" else loss, params, x, y)
    kinds = {tensor.diagnosis and tensor.diagnosis.kind for tensor in report.tensors.values()}
    if kind in (None, "clip"):
        assert report.verdict == "correct"
        assert ("clip" in (report.scope or "")) is (kind == "clip")
    else:
        assert report.verdict == "wrong"
        assert kinds == {kind}


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (careful, False),
        (halved, True),
        (log1pexp, False),
        (flipped, True),
        (functools.partial(applied, jnp.sin), False),
        (functools.partial(applied, jnp.cos), True),
    ],
)
@pytest.mark.parametrize("compiled", [False, slow(True)])
def test_custom_rules(function: Any, wrong: bool, compiled: bool) -> None:
    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(function(x @ params["inner"])) + jnp.sum(params["outer"] ** 2)

    params = {"inner": normal(1, 3, 2), "outer": normal(2, 2)}
    report = fastgc.jax.check(jax.jit(loss) if compiled else loss, params, normal(3, 4, 3))
    assert report.method == "stacked"
    assert shown(report) == (["['inner']"] if wrong else [])
    assert report.verdict == ("wrong" if wrong else "correct")


def test_a_relu_network_passes_where_check_grads_raises() -> None:
    """Biases of zero and a sample of zeros: every unit of the first layer is at its corner."""
    params = layers(3, 4, 1)
    X = normal(1, 5, 3).at[0].set(0.0)
    Y = normal(2, 5, 1)
    check_grads: Any = test_util.check_grads
    with float64(), pytest.raises(AssertionError, match="VJP cotangent projection"):
        check_grads(lambda p: network(p, X, Y), (params,), order=1, modes=["rev"])
    report = fastgc.jax.check(network, params, X, Y)
    assert report.verdict == "correct"
    assert report.tensors["[0]['b']"].counts["kink"] > 0


def settings_of_jax() -> dict[str, Any]:
    names = ("jax_enable_x64", "jax_default_device", "jax_default_prng_impl", "jax_default_matmul_precision",
             "jax_numpy_dtype_promotion", "jax_debug_nans", "jax_disable_jit", "jax_numpy_rank_promotion",
             "jax_debug_key_reuse", "jax_transfer_guard")  # fmt: skip
    return {name: getattr(jax.config, name) for name in names}


def test_nothing_of_the_callers_is_changed() -> None:
    loss, params, args = MODELS["network"]
    numpys = jax.tree_util.tree_map(np.array, (params, args))
    mine, data = jax.tree_util.tree_map(lambda x: x, (params, args))
    numpy_params, numpy_args = jax.tree_util.tree_map(np.array, (params, args))
    before, state = settings_of_jax(), np.random.get_state()
    fastgc.jax.check(loss, mine, *data)
    fastgc.jax.check(loss, numpy_params, *numpy_args, method="loop")
    with pytest.raises(ZeroDivisionError):
        fastgc.jax.check(lambda p, *_: 1 / 0, mine, *data)
    assert settings_of_jax() == before
    assert str(np.random.get_state()) == str(state)
    for one, other in ((mine, params), (data, args)):
        for a, b in zip(*map(jax.tree_util.tree_leaves, (one, other)), strict=True):
            assert a is b
    for now in ((mine, data), (numpy_params, numpy_args)):
        for a, b in zip(*map(jax.tree_util.tree_leaves, (now, numpys)), strict=True):
            assert np.array_equal(a, b)
    assert jnp.ones(1).dtype == np.float32


def test_double_precision_is_of_this_thread_alone() -> None:
    seen = []

    def loss(w: Any) -> Any:
        thread = threading.Thread(target=lambda: seen.append(jnp.ones(1).dtype))
        thread.start()
        thread.join()
        return jnp.sum(w**2)

    assert fastgc.jax.check(loss, normal(0, 2))
    assert seen
    assert set(seen) == {np.dtype(np.float32)}


def test_donated_arrays_are_copies() -> None:
    def descend(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(params * x))

    params, x = jnp.asarray(0.5), jnp.asarray(2.0)
    called = jax.jit(descend, donate_argnums=(0,))
    for method in ("stacked", "loop"):
        for grads in (None, np.float32(2 * np.cos(1.0))):
            assert fastgc.jax.check(called, params, x, method=method, grads=grads)
    assert not fastgc.jax.check(called, params, x, grads=np.float32(1.0))
    assert not params.is_deleted()
    assert not x.is_deleted()


def test_a_loss_may_write_to_its_arrays_of_numpys() -> None:
    def loss(w: Any, x: np.ndarray[Any, Any]) -> Any:
        x *= 2.0
        return jnp.sum(w * jnp.asarray(x))

    x = np.array([1.0, 2.0], np.float32)
    report = fastgc.jax.check(loss, normal(0, 2), x, grads=np.array([2.0, 4.0]))
    assert report.ok
    assert x.tolist() == [1.0, 2.0]


def test_committed_arrays() -> None:
    loss, params, args = MODELS["network"]
    device = jax.devices()[0]
    params, args = jax.device_put((params, args), jax.sharding.SingleDeviceSharding(device))
    assert fastgc.jax.check(loss, params, *args)


@pytest.mark.parametrize("kind", [jax.random.key, slow(jax.random.PRNGKey)])
def test_keys_are_arguments_and_pass_unchanged(kind: Any) -> None:
    def dropout(w: Any, key: Any) -> Any:
        return jnp.sum(jnp.where(jax.random.bernoulli(key, 0.5, w.shape), w, 0.0) ** 2)

    w, key = normal(0, 12), kind(0)
    assert fastgc.jax.check(dropout, w, key)
    assert fastgc.jax.check(dropout, w, key, grads=jax.grad(dropout))
    with pytest.raises(ValueError, match=r"in double precision.* grads="):
        fastgc.jax.check(dropout, w, key, grads=jax.grad(dropout)(w, key))


@pytest.mark.slow
def test_a_loss_in_half_precision_may_be_as_far_off_as_that_allows() -> None:
    def loss(w: Any) -> Any:
        return jnp.sum(w**3)

    w = (1 + jnp.arange(35) / 64).astype(jnp.bfloat16)
    grads = jax.grad(loss)(w)
    one, other = float(loss(w)), fastgc.jax.check(loss, w).cost
    assert other is not None
    assert abs(one / other - 1) > 3e-3
    assert fastgc.jax.check(loss, w, grads=grads)
    report = fastgc.jax.check(loss, w, grads=2 * grads)
    assert str(report.tensors["params"].diagnosis).endswith("× the numerical gradient")


@pytest.mark.slow
def test_gradients_of_a_perfect_fit_in_single_precision_are_not_accused() -> None:
    def loss(w: Any, x: Any, y: Any) -> Any:
        return jnp.mean((x @ w - y) ** 2)

    w, x = normal(1, 3, 2), normal(2, 8, 3)
    y = x @ w
    grads = jax.grad(loss)(w, x, y)
    with pytest.raises(ValueError, match="perfect"):
        fastgc.jax.check(loss, w, x, y, grads=grads)
    assert fastgc.jax.check(loss, w, x, y, grads=jax.grad(loss))


@pytest.mark.parametrize("method", ["stacked", slow("loop"), slow("random")])
def test_guards_of_jax_are_for_the_caller(method: str) -> None:
    def noisy(w: Any, key: Any) -> Any:
        return jnp.sum((w + jax.random.normal(key, w.shape, w.dtype)) ** 2)

    w, key, ones = normal(0, 3), jax.random.key(1), np.ones(3)
    with jax.transfer_guard("disallow"), jax.debug_key_reuse(True):
        assert fastgc.jax.check(noisy, w, key, method=method)
        with pytest.raises(ValueError, match=r"as you call it"):
            fastgc.jax.check(noisy, w, key, grads=ones)
        assert settings_of_jax()["jax_debug_key_reuse"]
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jnp.add(ones, 1)


def test_a_random_loss_is_refused() -> None:
    rng = np.random.default_rng(0)
    for grads in (None, np.ones(2)):
        with pytest.raises(ValueError, match="random"):
            fastgc.jax.check(lambda w: jnp.sum(w) * rng.random(), normal(0, 2), grads=grads)


struct: Any = jax.ShapeDtypeStruct
SCALAR = struct((), np.float64)


def callback(w: Any, how: str | None) -> Any:
    return jax.pure_callback(
        lambda w: np.asarray(np.sum(np.asarray(w) ** 3)), SCALAR, w, vmap_method=how
    )


def careless(w: Any) -> Any:
    """A callback that says it takes stacks, and sums over all of them."""
    stacked = jax.pure_callback(
        lambda w: np.full(w.shape[:-1], np.sum(np.asarray(w) ** 3)),
        SCALAR, w, vmap_method="broadcast_all",
    )  # fmt: skip
    return jnp.asarray(stacked)


def by_hand(w: Any) -> Any:
    return jnp.sum(w**3) if float(w[0]) < 1e6 else jnp.sum(w)


def in_numpy(w: Any) -> Any:
    return np.sum(np.asarray(w) ** 3)


def if_concrete(w: Any) -> Any:
    return jnp.sum(w**3) if w[0] < 1e6 else jnp.sum(w)


@pytest.mark.skipif(
    "vmap_method" not in inspect.signature(jax.pure_callback).parameters,
    reason="this JAX says in another way how a callback takes stacks",
)
@pytest.mark.parametrize(
    ("loss", "method"),
    [
        (lambda w: callback(w, None), "loop"),
        (lambda w: callback(w, "sequential"), "stacked"),
        (careless, "loop"),
        (by_hand, "loop"),
        (in_numpy, "loop"),
        (if_concrete, "loop"),
    ],
)
def test_what_cannot_be_vectorized_is_evaluated_one_by_one(loss: Any, method: str) -> None:
    w = normal(0, 3)
    right = 3 * np.asarray(w, np.float64) ** 2
    report = fastgc.jax.check(loss, w, grads=right)
    assert (report.verdict, report.method) == ("correct", method)
    assert shown(fastgc.jax.check(loss, w, grads=1.1 * right)) == ["params"]
    assert fastgc.jax.check(loss, w, grads=right, method="random").ok
    if method == "loop":
        with pytest.raises(ValueError, match=r'^method "stacked" .*jit\(.*method="loop"'):
            fastgc.jax.check(loss, w, grads=right, method="stacked")


def test_numpy_arguments_may_decide_shapes() -> None:
    def loss(w: Any, labels: Any) -> Any:
        return jnp.sum(jnp.eye(int(labels.max()) + 1)[labels] @ w**2)

    report = fastgc.jax.check(loss, normal(0, 3), np.array([0, 2, 2]))
    assert (report.verdict, report.method) == ("correct", "stacked")


def test_static_arguments() -> None:
    @functools.partial(jax.jit, static_argnums=(1, 2))
    def loss(w: Any, power: int, mode: str) -> Any:
        return jnp.sum(w**power) if mode == "sum" else jnp.mean(w**power)

    w = normal(0, 3)
    costs = [
        fastgc.jax.check(loss, w, power, mode).cost
        for power, mode in ((2, "sum"), (3, "sum"), (3, "mean"), (2, "sum"))
    ]
    exact = np.asarray(w, np.float64)
    assert costs == pytest.approx(
        [(exact**2).sum(), (exact**3).sum(), (exact**3).mean(), (exact**2).sum()]
    )


def test_functions_in_the_pytree_stay() -> None:
    def loss(params: Any) -> Any:
        return jnp.sum(params["activation"](params["w"]))

    assert fastgc.jax.check(loss, {"w": normal(0, 3), "activation": jnp.tanh, "name": "layer"})


def test_a_loss_is_read_anew_unless_it_was_compiled() -> None:
    factor = [1.0]

    def loss(w: Any) -> Any:
        return factor[0] * jnp.sum(w**2)

    w = normal(0, 2)
    first = fastgc.jax.check(loss, w)
    factor[0] = 3.0
    second = fastgc.jax.check(loss, w)
    assert second.ok
    assert first.cost is not None
    assert second.cost == pytest.approx(3 * first.cost)


def test_a_compiled_loss_is_compiled_once_for_all_checks() -> None:
    traced = []

    @jax.jit
    def loss(params: Any, x: Any) -> Any:
        traced.append(params)
        return jnp.sum(jnp.sin(params["w"] @ x))

    def once(seed: int) -> bool:
        return bool(fastgc.jax.check(loss, {"w": normal(seed, 4, 3)}, normal(seed + 1, 3)))

    assert once(0)
    before = len(traced)
    assert all(once(seed) for seed in (2, 4))
    assert len(traced) == before


def test_blocks_of_any_size_are_one_compiled_function() -> None:
    heights = []

    def loss(w: Any) -> Any:
        heights.append(getattr(w, "aval", None))
        return jnp.sum(jnp.sin(w))

    w = normal(0, 3 * MOST_ROWS + 5)
    assert (
        fastgc.jax.check(loss, w).evaluations == 2 * w.size + 11 + 3
    )  # all of w at once, and w last
    assert len(heights) <= 4  # value and gradient, the count of its operations, the block


@pytest.mark.parametrize("memory", [100_000, 1_000_000, 256 * 2**20])
def test_memory_changes_nothing_but_the_blocks(memory: int) -> None:
    w = normal(0, 300)
    report = fastgc.jax.check(lambda w: jnp.sum(jnp.sin(w)), w, memory=memory)
    assert (report.verdict, report.method) == ("correct", "stacked")


def test_large_parameters_are_looked_at_along_directions() -> None:
    def loss(params: Any) -> Any:
        return jnp.sum(jnp.sin(params["w"]) / 100)

    few, many = ({"w": normal(0, n)} for n in (200, 200 * 200))
    assert fastgc.jax.check(loss, few).method == "stacked"
    report = fastgc.jax.check(loss, many)
    assert (report.verdict, report.method) == ("correct", "random")
    assert report.evaluations < 100
    wrong = {"w": np.cos(np.asarray(many["w"], np.float64)) / 100}
    wrong["w"][1234] *= 1.5
    report = fastgc.jax.check(loss, many, grads=wrong)
    assert report.worst(1)[0].name == "['w'][1234]"
    assert fastgc.jax.check(loss, many, sample=5).method == "stacked"
    assert fastgc.jax.check(loss, {**many, "b": 1.0}, only=["['b']"], grads={"w": None, "b": 0.0}).method == "stacked"  # fmt: skip


def pinned(w: Any) -> Any:
    return jnp.sum(jnp.tanh(w.astype(jnp.float32)))


def pinned_inside(w: Any) -> Any:
    return jnp.sum(jnp.tanh(w.astype(jnp.float32)).astype(w.dtype) ** 2)


def pinned_in_a_scan(w: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        return (h * jnp.cos(x)).astype(jnp.float32).astype(x.dtype) + x, None

    return jax.lax.scan(step, w[0], w)[0] ** 2


def pinned_in_a_branch(w: Any) -> Any:
    return jax.lax.cond(
        True, lambda w: jnp.sum(w.astype(jnp.float32) ** 2).astype(w.dtype), jnp.sum, w
    )


@pytest.mark.parametrize("loss", [pinned, pinned_inside, pinned_in_a_scan, pinned_in_a_branch])
@pytest.mark.parametrize("compiled", [False, slow(True)])
@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_single_precision_that_is_pinned(loss: Any, seed: int, compiled: bool) -> None:
    called = jax.jit(loss) if compiled else loss
    w = normal(seed, 4)
    report = fastgc.jax.check(called, w)
    assert report.verdict == "correct"
    assert report.epsilon > 1e-5  # "auto", by itself
    assert report.tolerance == 1e-4
    assert says(report, "float32 … 0.0001")
    wrong = fastgc.jax.check(called, w, grads=lambda w: 1.1 * jax.grad(loss)(w))
    assert shown(wrong) == ["params"]
    assert fastgc.jax.check(called, w, epsilon=1e-7).ok  # longer steps are taken


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_that_is_pinned_is_refused(dtype: str) -> None:
    for loss in (
        lambda w: jnp.sum(w.astype(dtype)),
        lambda w: jnp.sum(w.astype(dtype)).astype(w.dtype),
    ):
        with pytest.raises(ValueError, match=f"^the loss computes in {dtype}"):
            fastgc.jax.check(loss, normal(0, 3))


@pytest.mark.parametrize("compiled", [False, True])
def test_single_precision_that_no_parameter_passes_through(compiled: bool) -> None:
    x = normal(1, 5, 3)

    def loss(w: Any, n: Any) -> Any:
        scale = jnp.sqrt(n.astype(jnp.float32)) + jnp.sum(2 * x)
        return jnp.sum(jnp.tanh(x @ w) ** 2) * scale

    report = fastgc.jax.check(jax.jit(loss) if compiled else loss, normal(0, 3), np.array(3))
    assert (report.verdict, report.tolerance, report.epsilon) == ("correct", 2e-7, 1e-7)
    assert report.scope is None


def test_options_pass_through(tmp_path: Any) -> None:
    report = fastgc.jax.check(total, W, only=["*'b'*"], tolerance=1e-5, epsilon=1e-6)
    assert list(report.tensors) == ["['b']"]
    assert (report.tolerance, report.epsilon) == (1e-5, 1e-6)
    report = fastgc.jax.check(total, W, sample=2, seed=1, progress=False)
    assert {name: tensor.size for name, tensor in report.tensors.items()} == {
        "['b']": 1,
        "['w']": 2,
    }
    report = fastgc.jax.check(total, W, method="random", directions=3, per_tensor=False, seed=2)
    assert sum(tensor.size for tensor in report.tensors.values()) == 3
    file = tmp_path / "run.npz"
    first = fastgc.jax.check(total, W, checkpoint=file)
    assert file.exists()
    assert fastgc.jax.check(total, W, checkpoint=file).difference == first.difference


def test_the_order_of_a_dict_tells_no_origin() -> None:
    def loss(p: Any) -> Any:
        return sum(jnp.sum(leaf**2) for leaf in jax.tree_util.tree_leaves(p))

    leaves = [normal(i, 2) for i in range(3)]
    wrong = [4 * leaves[0], 2 * leaves[1], 2 * leaves[2]]
    assert "Backwards" in str(fastgc.jax.check(loss, leaves, grads=wrong))
    named = fastgc.jax.check(
        loss, dict(zip("zab", leaves, strict=True)), grads=dict(zip("zab", wrong, strict=True))
    )
    assert shown(named) == ["['z']"]
    assert "Backwards" not in str(named)


W: dict[str, Any] = {"w": np.ones((2, 3)), "b": 1.0}


def total(params: Any) -> Any:
    return jnp.sum(params["w"] ** 2) + params["b"] ** 2


@pytest.mark.parametrize(
    ("loss", "params", "options", "error", "message"),
    [
        (W, total, {}, TypeError, r"^loss is a dict; .* loss, params, \*args$"),
        (total, {"w": 1j, "b": 1.0}, {}, TypeError, r"^params\['w'\] is complex \(complex128\)"),
        (total, {"w": 1, "b": jnp.arange(2)}, {}, ValueError, r"^params .* int\b.* int32 .*\(2,\)$"),
        (total, {}, {}, ValueError, "^params "),
        (total, {"w": np.array([1.0, np.nan]), "b": 1.0}, {}, ValueError, r"^parameters\[\"\['w'\]\"\]\[1\] is nan|^\['w'\]\[1\] is nan"),
        (lambda p: p["w"], W, {}, TypeError, r"^the loss .*\(2, 3\)"),
        (lambda p: (p["b"], 1), W, {}, TypeError, r"^the loss .* tuple; .*\[0\]$"),
        (lambda p: None, W, {}, TypeError, "^the loss returned None"),
        (lambda p: 3, W, {}, TypeError, r"^the loss .* int\b"),
        (lambda p: jnp.asarray(3), W, {}, TypeError, r"^the loss .*dtype int"),
        (lambda p: p["b"] * 1j, W, {}, TypeError, r"^the loss .*complex128"),
        (lambda p: p["b"] / 0, W, {}, ValueError, r"^the cost is inf"),
        (total, W, {"grads": {"w": W["w"]}}, ValueError, r"^grads\['b'\] .* params\['b'\]"),
        (total, W, {"grads": {"w": None, "b": 1.0}}, ValueError, r"^grads\['w'\] is None"),
        (total, W, {"grads": {**W, "c": 1.0}}, ValueError, r"^grads\['c'\] .* params\['c'\]"),
        (total, W, {"grads": (1.0, W)}, ValueError, r"value_and_grad .*\[1\]$"),
        (total, W, {"grads": jax.value_and_grad(total)}, ValueError, r"\[1\]$"),
        (total, W, {"grads": (W, "aux")}, ValueError, r"has_aux .*\[0\]$"),
        (total, W, {"grads": {"w": np.ones((3, 2)), "b": 1.0}}, ValueError, r"^grads\['w'\] .*\(3, 2\).* params\['w'\] .*\(2, 3\).*Transpose"),
        (total, W, {"grads": {"w": np.ones(3), "b": 1.0}}, ValueError, r"^grads\['w'\] .*\(3,\).* params\['w'\] .*\(2, 3\)"),
        (total, W, {"grads": {"w": np.ones((2, 3)) * 1j, "b": 1.0}}, TypeError, r"^grads\['w'\] .*complex128"),
        (total, W, {"grads": {"w": "no", "b": 1.0}}, TypeError, r"^grads\['w'\] is a str"),
        (lambda w: jnp.sum(w), np.ones(2), {"grads": np.ones(3)}, ValueError, r"^grads .*\(3,\).* params .*\(2,\)"),
        (total, W, {"method": "node"}, ValueError, r'^method is "node"'),
        (total, W, {"method": "best"}, ValueError, r'^method is "best"'),
        (total, W, {"method": 3}, TypeError, r"^method is 3"),
        (total, W, {"vectorized": True}, TypeError, "vectorized="),
        (total, W, {"reseed": print}, TypeError, "reseed="),
        (total, W, {"executor": None}, TypeError, "executor="),
        (total, W, {"train": True}, TypeError, r"train=.*lambda"),
        (total, W, {"tolerance": -1}, ValueError, r"^tolerance is -1"),
        (total, W, {"only": ["z"]}, ValueError, r'^only holds "z"'),
        (total, W, {"sample": 0}, ValueError, r"^sample is 0"),
        (total, W, {"directions": 3}, ValueError, r'method="random"'),
        (total, W, {"seed": -1}, ValueError, r"^seed is -1"),
        (total, W, {"memory": 0}, ValueError, r"^memory is 0"),
        (total, W, {"epsilon": 0}, ValueError, r"^epsilon is 0"),
    ],
)  # fmt: skip
def test_messages(
    loss: Any, params: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fastgc.jax.check(loss, params, **options)


def test_within_jit_it_says_so() -> None:
    with pytest.raises(TypeError, match=r"^params\['w'\] is a tracer"):
        jax.jit(lambda w: fastgc.jax.check(total, {"w": w, "b": 1.0}))(normal(0, 2))


@pytest.mark.parametrize("around", [jax.jit, jax.grad, jax.vmap])
def test_tracers_that_are_arguments_or_that_the_loss_uses(around: Any) -> None:
    def scaled(params: Any, data: Any) -> Any:
        return jnp.sum(data["x"]) * jnp.sum(params**2)

    def as_argument(x: Any) -> Any:
        return fastgc.jax.check(scaled, ones, {"x": x})

    def closed_over(grads: Any) -> Callable[[Any], Any]:
        return lambda x: fastgc.jax.check(lambda w: scaled(w, {"x": x}), ones, grads=grads)

    ones, x = np.ones(2), jnp.ones(3)
    if around is jax.grad:
        x = x[0]
    outside = "is a tracer: .* jit, grad and vmap"
    with pytest.raises(TypeError, match=rf"^args\[0\]\['x'\] {outside}"):
        around(as_argument)(x)
    for grads in (None, ones, lambda w: w):
        with pytest.raises(TypeError, match=rf"^what the loss returned {outside}"):
            around(closed_over(grads))(x)


def test_within_jit_arrays_that_have_values_do_not_help() -> None:
    with pytest.raises(TypeError, match=r"^what the loss returned is a tracer"):
        jax.jit(lambda x: fastgc.jax.check(total, W))(jnp.ones(2))


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def test_exceptions_pass_with_a_note() -> None:
    class MineError(Exception):
        pass

    def raising(*_: Any) -> Any:
        raise MineError("here")

    with pytest.raises(MineError, match="here") as caught:
        fastgc.jax.check(raising, W)
    assert "fastgc: the loss raised this" in notes(caught.value)
    with pytest.raises(MineError, match="here") as caught:
        fastgc.jax.check(total, W, grads=raising)
    assert "fastgc: grads raised this" in notes(caught.value)

    def pinned(w: Any) -> Any:
        return jax.lax.scan(lambda c, x: (c + x * w[0], None), jnp.zeros((), jnp.float32), w)[0]

    with pytest.raises(TypeError, match="carry") as caught_:
        fastgc.jax.check(pinned, normal(0, 3))
    assert "x.dtype" in notes(caught_.value)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work") as caught__:
        fastgc.jax.check(
            lambda w: jnp.sum(jax.lax.while_loop(lambda h: h[0] < 9, lambda h: h * 2, w)),
            normal(0, 2) ** 2,
        )
    assert "fastgc: jax.grad of the loss raised this" in notes(caught__.value)


def test_where_the_loss_ends() -> None:
    """The second point of the comparison of forms may lie where the loss raises or is NaN."""

    def log(w: Any) -> Any:
        return jnp.sum(jnp.log(w))

    assert fastgc.jax.check(log, jnp.array([1e-5, 2.0]), epsilon=1e-9, tolerance=1e-3)

    def strict(w: Any) -> Any:
        if float(w[0]) != 1.0 and abs(float(w[0]) - 1.0) > 2e-7:
            raise ValueError("too far")
        return w[0] ** 2

    assert fastgc.jax.check(strict, jnp.ones(1), grads=np.array([2.0])).method == "loop"


def test_assert_gradients() -> None:
    assert fastgc.jax.assert_gradients(total, W).ok
    with pytest.raises(
        fastgc.GradientMismatch, match=r"^wrong: \['w'\] \(6 of 6 entries\)"
    ) as caught:
        fastgc.jax.assert_gradients(total, W, grads={"w": 3 * W["w"], "b": 2.0})
    assert shown(caught.value.report) == ["['w']"]
    assert caught.traceback[-1].frame.code.name == "assert_gradients"
    assert caught.traceback[-1].frame.f_locals["__tracebackhide__"] is True


def test_modules_that_can_be_called_are_gradients_too() -> None:
    class Module(Pair):
        def __call__(self, x: Any) -> Any:
            return self.left * x + self.right

    jax.tree_util.register_pytree_node(
        Module, lambda p: ((p.left, p.right), None), lambda _, children: Module(*children)
    )
    x = jnp.arange(3.0)
    model = Module(jnp.asarray(2.0), jnp.asarray(1.0))
    grads = jax.grad(lambda model: jnp.sum(model(x) ** 2))(model)
    assert fastgc.jax.check(lambda model, x: jnp.sum(model(x) ** 2), model, x, grads=grads)
    doubled = Module(2 * grads.left, grads.right)
    report = fastgc.jax.check(lambda model, x: jnp.sum(model(x) ** 2), model, x, grads=doubled)
    assert shown(report) == ["[<flat index 0>]"]


def test_no_warnings_and_no_output(capfd: pytest.CaptureFixture[str]) -> None:
    loss, params, args = MODELS["network"]
    with warnings.catch_warnings(action="error"):
        fastgc.jax.check(loss, params, *args)
    assert capfd.readouterr() == ("", "")


def keyed(params: Any, x: Any) -> Any:
    """Attention, whose softmax takes out what a bias of the keys adds."""
    q, k, v = (x @ params[c]["w"] + params[c]["b"] for c in "qkv")
    return jnp.mean((jax.nn.softmax(q @ k.T) @ v) ** 2)


def normed(params: Any, x: Any) -> Any:
    """A batch normalisation, which takes out the bias below it."""
    z = x @ params["w"] + params["b"]
    return jnp.mean(jnp.tanh((z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-5) * params["g"]))


@pytest.mark.parametrize("method", ["auto", slow("loop"), slow("random")])
@pytest.mark.parametrize("single", [False, slow(True)])
@pytest.mark.parametrize(
    ("loss", "params", "name"),
    [
        (keyed, {c: {"w": normal(i, 3, 3), "b": normal(i + 3, 3)} for i, c in enumerate("qkv")},
         "['k']['b']"),
        (normed, {"w": normal(0, 3, 3), "b": normal(1, 3), "g": normal(2, 3)}, "['b']"),
    ],
)  # fmt: skip
def test_a_tensor_that_the_loss_does_not_depend_on(
    loss: Any, params: Any, name: str, single: bool, method: str
) -> None:
    x = normal(9, 5, 3)
    grads = jax.grad(loss)(params, x) if single else None
    report = fastgc.jax.check(loss, params, x, grads=grads, method=method)
    assert report.ok
    assert f"the loss does not depend on {name}" in str(report.scope)

    def planted(params: Any, x: Any) -> Any:
        def plant(path: Any, grad: Any) -> Any:
            return grad + 1e-3 * (jax.tree_util.keystr(path) == name)

        return jax.tree_util.tree_map_with_path(plant, jax.grad(loss)(params, x))

    wrong = fastgc.jax.check(loss, params, x, grads=planted, method=method)
    assert [name for name, tensor in wrong.tensors.items() if tensor.verdict == "wrong"] == [name]

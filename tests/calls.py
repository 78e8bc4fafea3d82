"""What Hypothesis draws for the public boundary: right calls, most of them spoilt somewhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

import fastgc
from fastgc.network.layers import ACTIVATIONS, LOSSES
from tests.boundary import Call, Recorded, value_of
from tests.cases import backward
from tests.hostile import (
    ARRAYS,
    FORMS,
    KEYS,
    LABELS,
    MAPPINGS,
    NETWORK_OPTIONS,
    OPTIONS,
    SEQUENCES,
    SPOILT,
    TWISTS,
    WRONG_CONTAINERS,
    Array,
    Twist,
    squares,
    stacked_squares,
)

_VALUES = np.random.default_rng(0).standard_normal(96)
_OF = {
    fastgc.check: (
        "method", "epsilon", "tolerance", "vectorized", "memory", "threads", "progress", "only", "sample",
        "directions", "seed", "per_tensor", "executor", "checkpoint",
    ),
    fastgc.assert_gradients: (
        "method", "epsilon", "tolerance", "vectorized", "memory", "threads", "only", "sample", "executor", "checkpoint",
    ),
    fastgc.numerical_gradient: ("method", "epsilon", "vectorized", "memory", "threads", "progress", "executor", "checkpoint"),
    fastgc.plan: ("vectorized", "memory", "threads"),
    fastgc.select_method: ("vectorized",),
    value_of: (),
}  # fmt: skip

_COMPARING = (fastgc.check, fastgc.assert_gradients)  # those that take gradients

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    | st.binary(max_size=3) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@dataclass(eq=False)
class Draft:
    """The parts of a call before they are put together."""

    function: Callable[..., Any] | None
    parameters: dict[str, Any]
    gradients: dict[str, Any]
    data: list[Any]
    network: dict[str, Any]
    options: dict[str, Any]
    containers: list[str]  # of the parameters and of the gradients
    computed: bool  # the gradients are a function
    twists: list[str | None] = field(default_factory=lambda: [None, None])  # of cost and gradients
    replaced: dict[int, Any] = field(default_factory=dict)  # position -> argument
    surplus: int = 0  # arguments too many
    story: list[str] = field(default_factory=list)


_CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **MAPPINGS, **SEQUENCES, **ARRAYS, **{f"wrong {k}": make for k, make in WRONG_CONTAINERS.items()},
}  # fmt: skip

_shape = st.sampled_from(((), (1,), (3,), (2, 3), (3, 1), (1, 3), (2, 1, 2), (0,), (2, 3), (3,)))
_width = st.integers(1, 3)
_scale = st.sampled_from((1.0, 1.0, 1.0, 1.0, 1e-3, 30.0, 1e5, 1e-160, 1e150, 1e307, 0.0))
_offset, _position = st.integers(0, 63), st.integers(0, 2)
_one_in_two, _one_in_four = st.booleans(), st.sampled_from((False, False, False, True))
_spoilers = st.sampled_from((0, 1, 1, 1, 1, 1, 2, 2, 2, 3))
_form, _spoilt = st.sampled_from(sorted(FORMS)), st.sampled_from(sorted(SPOILT))
_good_container = st.sampled_from(("dict", "dict", "dict", *MAPPINGS, "list", "list", *SEQUENCES))
_any_container = st.sampled_from((*(f"wrong {k}" for k in WRONG_CONTAINERS), *_CONTAINERS))
_twist, _key, _label = (
    st.sampled_from(sorted(TWISTS)),
    st.sampled_from(KEYS),
    st.sampled_from(sorted(LABELS)),
)
_values_of = {name: st.sampled_from(values) for name, values in (OPTIONS | NETWORK_OPTIONS).items()}
_function = st.sampled_from((
    *[fastgc.check] * 8, *[fastgc.assert_gradients] * 3, *[fastgc.numerical_gradient] * 4, fastgc.select_method, fastgc.plan,
))  # fmt: skip
_of_network = st.sampled_from((
    *[fastgc.check] * 4, *[fastgc.assert_gradients] * 2, *[fastgc.numerical_gradient] * 2, fastgc.select_method, fastgc.plan,
    *[value_of] * 3, *[None] * 5,
))  # fmt: skip
_activation, _loss = st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(sorted(LOSSES))


def _numbers(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    start = draw(_offset)
    return np.resize(_VALUES[start:], shape)


def _of_function(draw: st.DrawFn) -> Draft:
    container = draw(st.sampled_from(("array", "many", "many")))
    count = 1 if container == "array" else draw(_width)
    scale = draw(_scale)
    parameters = {
        name: np.asarray(scale * _numbers(draw, draw(_shape))) for name in ("W", "b", "c")[:count]
    }
    function: Any = draw(_function)
    options: dict[str, Any] = {"vectorized": True} if draw(_one_in_four) else {}
    gradients: dict[str, Any] = {}
    if function in _COMPARING:
        with np.errstate(all="ignore"):
            gradients = {name: np.asarray(2.0 * value) for name, value in parameters.items()}
    kind = container if container == "array" else draw(_good_container)
    return Draft(function, parameters, gradients, [], {}, options, [kind, kind], draw(_one_in_four))


def _of_a_network(draw: st.DrawFn) -> Draft:
    widths = [draw(_width) for _ in range(draw(st.integers(2, 4)))]
    m, scale = draw(_width), draw(_scale)
    X = scale * _numbers(draw, (widths[0], m))
    parameters: dict[str, Any] = {}
    for l, (k, n) in enumerate(pairwise(widths), start=1):
        parameters[f"W{l}"] = _numbers(draw, (n, k))
        parameters[f"b{l}"] = _numbers(draw, (n, 1))
    loss = draw(_loss)
    network: dict[str, Any] = {"activation": draw(_activation), "loss": loss}
    if draw(_one_in_four):
        network["weight_decay"] = 0.3
    Y: Any = _numbers(draw, (widths[-1], m)) > 0
    if loss == "softmax":
        Y = (
            np.arange(m) % widths[-1]
            if draw(_one_in_two)
            else np.eye(widths[-1])[:, np.arange(m) % widths[-1]]
        )
    Y = np.asarray(Y, dtype=float)
    function = draw(_of_network)
    gradients: dict[str, Any] = {}
    if function in _COMPARING:
        with np.errstate(all="ignore"):
            gradients = dict(backward(fastgc.Network(X, Y, **network), parameters))
        gradients = {name: gradients[name] for name in parameters}
    kind = draw(_good_container)
    return Draft(
        function, parameters, gradients, [X, Y], network, {}, [kind, kind], draw(_one_in_four)
    )


def _change(place: Any, name: Any, how: Callable[[Array], Any]) -> None:
    """Changes a tensor, unless it has been already."""
    if type(place[name]) is np.ndarray and place[name].dtype == np.float64:
        with np.errstate(all="ignore"):
            place[name] = how(place[name])


def _spoil_tensor(draw: st.DrawFn, draft: Draft) -> str:
    places = {"parameters": draft.parameters, "gradients": draft.gradients, "data": draft.data}
    if draft.function is None:
        del places["parameters"]
    which = draw(st.sampled_from([which for which, place in places.items() if place] or ["data"]))
    place: Any = places[which]
    if not place:
        return "nothing"
    how = draw(_spoilt)
    name = draw(st.sampled_from(list(place) if isinstance(place, dict) else [0, 1]))
    _change(place, name, SPOILT[how])
    return f"{how} for {name!r} of {which}"


def _spoil_labels(draw: st.DrawFn, draft: Draft) -> str:
    if not draft.data:
        return _spoil_tensor(draw, draft)
    how = draw(_label)
    _change(draft.data, 1, LABELS[how])
    return f"labels {how}"


def _spoil_container(draw: st.DrawFn, draft: Draft) -> str:
    which = draw(_position) % 2 if draft.function in _COMPARING else 0
    how = draw(_any_container)
    draft.containers[which] = how
    return f"container {which} {how}"


def _spoil_keys(draw: st.DrawFn, draft: Draft) -> str:
    place = draft.gradients if draw(_one_in_two) and draft.gradients else draft.parameters
    if not place:
        return "nothing"
    name, key = draw(st.sampled_from(list(place))), draw(_key)
    how = draw(st.sampled_from(("rename", "leave out", "add", "add prefixed", "prefix")))
    if how in ("rename", "leave out", "prefix"):
        value = place.pop(name)
    if how == "rename":
        place[key] = value
    elif how == "prefix":
        place[f"d{name}"] = value
    elif how == "add":
        place[key] = place[name]
    elif how == "add prefixed":
        place[f"d{name}"] = place[name]
    if not place:
        draft.containers = ["dict", "dict"]
    return f"{how} {name} {key!r}"


def _spoil_option(draw: st.DrawFn, draft: Draft) -> str:
    if draft.data and (draft.function is None or draw(_one_in_two)):
        name = draw(st.sampled_from(sorted(NETWORK_OPTIONS)))
        draft.network[name] = draw(_values_of[name])
        return f"network {name}"
    assert draft.function is not None
    name = draw(st.sampled_from((*_OF[draft.function] * 3, *OPTIONS)))
    draft.options[name] = draw(_values_of[name])
    return f"option {name}"


def _spoil_cost(draw: st.DrawFn, draft: Draft) -> str:
    if draft.data and draft.function not in _COMPARING:
        return _spoil_tensor(draw, draft)
    which = 1 if draft.data or (draft.function in _COMPARING and draw(_position) == 0) else 0
    draft.twists[which] = draw(_twist)
    if which:
        draft.computed = True
    return f"twist {which} {draft.twists[which]}"


def _spoil_arguments(draw: st.DrawFn, draft: Draft) -> str:
    how = draw(st.sampled_from(("anything", "anything", "one more", "no more", "swapped")))
    if how == "one more":
        draft.surplus = 1
    elif how == "no more":
        draft.surplus = -1
    elif how == "swapped":
        draft.surplus = 2
    else:
        draft.replaced[draw(_position)] = draw(ANYTHING)
    return how


_spoiler = st.sampled_from((
    *[_spoil_tensor] * 5, _spoil_labels, *[_spoil_container] * 3, *[_spoil_keys] * 2, *[_spoil_option] * 3,
    *[_spoil_cost] * 4, _spoil_arguments,
))  # fmt: skip


_spoiler_of_data = st.sampled_from((_spoil_tensor, _spoil_labels, _spoil_option))


def _reform(draw: st.DrawFn, draft: Draft) -> None:
    """Holds a tensor in another way."""
    place: Any = (draft.parameters, draft.gradients, draft.data)[
        draw(st.sampled_from((0, 0, 1, 2)))
    ]
    if place:
        name = draw(st.sampled_from(list(place) if isinstance(place, dict) else [0, 1]))
        how = draw(_form)
        _change(place, name, FORMS[how])
        draft.story.append(f"{how} {name!r}")


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call of something public: right, then spoilt in none to three places."""
    draft = (
        _of_a_network(draw) if draw(st.sampled_from((False, False, True))) else _of_function(draw)
    )
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        _reform(draw, draft)
    spoiler = _spoiler if draft.function is not None else _spoiler_of_data
    draft.story += [draw(spoiler)(draw, draft) for _ in range(draw(_spoilers))]
    return _finished(draft, strict=draw(_one_in_four))


def _twisted(name: str | None) -> Twist | None:
    return None if name is None else TWISTS[name]()


def _finished(draft: Draft, *, strict: bool) -> Call:
    parameters = _CONTAINERS[draft.containers[0]](draft.parameters)
    gradients = _CONTAINERS[draft.containers[1]](draft.gradients)
    args = [parameters]
    if draft.function in _COMPARING:
        if draft.computed:
            twist = draft.twists[1]
            made = gradients
            gradients = Recorded(f"gradients {twist}", lambda p: made, _twisted(twist))
        args.append(gradients)
    if not draft.data:
        twist = draft.twists[0]
        honest = stacked_squares if draft.options.get("vectorized") is True else squares
        args.insert(0, Recorded(f"cost {twist}", honest, _twisted(twist)))
    for place, value in draft.replaced.items():
        if place < len(args):
            args[place] = value
    if draft.surplus == 1:
        args.append(1e-7)
    elif draft.surplus == -1:
        args.pop()
    elif draft.surplus == 2:
        args.reverse()
    if draft.function is None:
        args = []
    data = (*draft.data, draft.network) if draft.data else None
    return Call(draft.function, data, tuple(args), draft.options, strict, tuple(draft.story))

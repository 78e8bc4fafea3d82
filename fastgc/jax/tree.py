"""Pytrees: a name for every leaf, those that are checked, and gradients of the same structure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from fastgc.jax.calling import require_concrete

#: What a pytree that is one array is called.
ROOT = "params"


@dataclass(frozen=True, eq=False, repr=False)
class Tree:
    """Parameters in a pytree.

    Attributes:
        leaves: all, as the caller passed them, by names of which no two are alike.
        checked: the names of those that are checked, the floating-point ones with a number in them,
            and the number of each among `leaves`.
        structure: of the pytree.
        ordered: whether their order is the caller's; JAX sorts the keys of a dict.
    """

    leaves: Mapping[str, Any]
    checked: Mapping[str, int]
    structure: Any
    ordered: bool


def tree_of(params: Any) -> Tree:
    """`params` as a `Tree`.

    Raises:
        TypeError: for complex leaves and for traced ones.
        ValueError: where no leaf is to be checked.
    """
    leaves = _leaves(params)
    checked = {}
    for i, (name, leaf) in enumerate(leaves.items()):
        kind = _dtype_of(leaf, f"params{_step(name)}")
        if kind is not None and jnp.issubdtype(kind, jnp.complexfloating):
            raise TypeError(
                f"params{_step(name)} is complex ({kind}); fastgc checks real parameters. Keep its "
                "real and imaginary parts as two leaves, and join them in the loss"
            )
        if kind is not None and jnp.issubdtype(kind, jnp.floating) and np.size(leaf):
            checked[name] = i
    if not checked:
        kinds = ", ".join(sorted(map(_described, leaves.values()))) or "no leaves at all"
        raise ValueError(
            f"params has no floating-point number in it, and so nothing to check; it has {kinds}"
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    sorts = any(isinstance(key, jax.tree_util.DictKey) for path, _ in paths for key in path)
    return Tree(leaves, checked, structure, ordered=not sorts)


def gradients_of(tree: Tree, grads: Any, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """`grads` as name -> array, for the leaves that are `wanted`.

    Leaves that are not floating-point may have any gradient, None, or none.

    Raises:
        TypeError, ValueError: for another structure; the message names the path that differs.
    """
    given = _leaves(grads, none_is_leaf=True)
    _require_same_paths(tree, given, grads, wanted)
    arrays = {}
    for name in wanted:
        path, value, shape = _step(name), given[name], np.shape(tree.leaves[name])
        kind = _dtype_of(value, f"grads{path}")
        if kind is None or not any(jnp.issubdtype(kind, k) for k in (jnp.floating, jnp.integer)):
            dtype = "float0" if kind == jax.dtypes.float0 else str(kind)
            what = f"a {type(value).__name__}" if kind is None else f"of dtype {dtype}"
            raise TypeError(f"grads{path} is {what}; wanted an array of real numbers")
        array = np.asarray(value)
        if array.shape != shape:
            advice = "A gradient has the shape of its parameter"
            if array.ndim > 1 and array.shape[::-1] == shape:
                advice = "Transpose it?"
            raise ValueError(
                f"grads{path} has shape {array.shape}; params{path} has shape {shape}. {advice}"
            )
        arrays[name] = array
    return arrays


def is_function(grads: Any, tree: Tree) -> bool:
    """Whether `grads` is to be called. A module that is a pytree can be, and is not."""
    structure = jax.tree_util.tree_structure(grads)
    if jax.tree_util.treedef_is_leaf(structure):
        return callable(grads)
    return isinstance(grads, jax.tree_util.Partial) and structure != tree.structure


def _require_same_paths(
    tree: Tree, given: Mapping[str, Any], grads: Any, wanted: Collection[str]
) -> None:
    advice = "wanted a pytree of the structure of params"
    if isinstance(grads, tuple) and len(grads) == 2:
        for part, why in ((0, "has_aux puts it last"), (1, "value_and_grad puts the value first")):
            inner = _leaves(grads[part], none_is_leaf=True)
            if inner.keys() <= tree.leaves.keys() and all(
                name in inner and np.shape(inner[name]) == np.shape(tree.leaves[name])
                for name in wanted
            ):
                advice = f"it is a pair: {why}; pass its element [{part}]"
    for name in wanted:
        if given.get(name) is None:
            fault = "is None" if name in given else "is missing"
            raise ValueError(
                f"grads{_step(name)} {fault}, and params{_step(name)} is there; {advice}"
            )
    for name, value in given.items():
        if value is not None and name not in tree.leaves:
            raise ValueError(
                f"grads{_step(name)} is there, and params{_step(name)} is missing; {advice}"
            )


def _leaves(tree: Any, *, none_is_leaf: bool = False) -> dict[str, Any]:
    """Every leaf by its path, as JAX writes it."""
    is_leaf = (lambda leaf: leaf is None) if none_is_leaf else None
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]:
        name = plain = jax.tree_util.keystr(path) or ROOT
        number = 1
        while name in leaves:  # keys that print alike, or a node that calls two children the same
            number += 1
            name = f"{plain}#{number}"
        leaves[name] = leaf
    return leaves


def _step(name: str) -> str:
    """What follows ``params`` or ``grads`` to reach the leaf of this name."""
    return "" if name == ROOT else name


def _dtype_of(leaf: Any, expression: str) -> Any:
    """The dtype of a number or an array; None for anything else."""
    require_concrete(leaf, expression)
    if isinstance(leaf, bool | int | float | complex):
        return np.dtype(bool if isinstance(leaf, bool) else type(leaf))
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return leaf.dtype
    return None


def _described(leaf: Any) -> str:
    """Of a leaf that is not checked: its dtype, or its type."""
    if not hasattr(leaf, "dtype"):
        return f"a leaf of type {type(leaf).__name__}"
    return f"an array of dtype {leaf.dtype} and shape {np.shape(leaf)}"

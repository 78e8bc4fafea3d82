"""Saved cases: a network, its data and its gradients in one npz file, read without pickle."""

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgc.core.tree import FloatArray, as_real_array
from fastgc.network.network import Network

OPTIONS = ("activation", "loss", "weight_decay")


class CaseError(ValueError):
    """A file that holds no usable case; the message names the key."""


@dataclass(frozen=True)
class Case:
    """What a file holds: a network with its data, its parameters, and their gradients."""

    network: Network
    parameters: dict[str, FloatArray]
    gradients: dict[str, FloatArray]


def load_case(path: str | os.PathLike[str]) -> Case:
    """The case in the npz file at `path`.

    Its keys are X, Y, W1, b1, … and dW1, db1, …; optional are activation (a string, or one for each
    hidden layer), loss and weight_decay, as for `Network`. dZ1, dA1, …, dz1, da1, …
    and dX are passed over.

    Raises:
        CaseError: for a file that cannot be read or does not hold such a case.
    """
    arrays = _read(Path(path))
    for key in ("X", "Y", "W1", "b1"):
        if key not in arrays:
            raise CaseError(
                f"{path} has no {key}; wanted X, Y, W1, b1, … and dW1, db1, … "
                f"(it has: {', '.join(arrays) or 'nothing'})"
            )
    parameters, gradients = {}, {}
    for key, array in arrays.items():
        if re.fullmatch(r"[Wb]\d+", key):
            parameters[key] = _numbers(array, key)
        elif re.fullmatch(r"d[Wb]\d+", key):
            gradients[key] = _numbers(array, key)
        elif key not in ("X", "Y", *OPTIONS) and not re.fullmatch(r"d[ZAza]\d+|dX", key):
            raise CaseError(
                f"{path} has the key {key}, which is not one of X, Y, W1, b1, …, dW1, db1, …, "
                f"{', '.join(OPTIONS)}. Mend the name, or leave it out"
            )
    for key in parameters:
        if f"d{key}" not in gradients:
            raise CaseError(f"{path} has {key} but no d{key}, the gradient to be checked")
    for key in gradients:
        if not {f"W{key[2:]}", f"b{key[2:]}"} & parameters.keys():
            raise CaseError(
                f'{path}: gradients has the key "{key}", which belongs to no parameter; '
                f"parameters has: {', '.join(parameters)}. Mend the name, or leave it out"
            )
    try:
        network = Network(
            _numbers(arrays["X"], "X"),
            _numbers(arrays["Y"], "Y", kinds="iufb"),
            activation=_names(arrays.get("activation"), "activation", "relu"),
            loss=_name(arrays.get("loss"), "loss", "logistic"),
            weight_decay=_scalar(arrays.get("weight_decay"), "weight_decay"),
        )
    except (TypeError, ValueError) as error:
        raise CaseError(str(error)) from error
    return Case(network, parameters, gradients)


def save_case(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes a case, its arrays by key, to a new file.

    Raises:
        CaseError: where the file exists or cannot be written.
    """
    try:
        with Path(path).open("xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except FileExistsError as error:
        raise CaseError(f"{path} exists; it is left as it is. Choose another name") from error
    except OSError as error:
        raise CaseError(f"{path} cannot be written: {error.strerror or error}") from error


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of the file. Whatever the bytes are, the only exception is CaseError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror or error}") from error
    if content.startswith(b"\x93NUMPY"):
        raise CaseError(f"{path} is a npy file with one array; wanted npz: np.savez(path, X=X, …)")
    if not content.startswith(b"PK"):
        what = "is not a npz file" if content else "is empty"
        raise CaseError(f"{path} {what}; `fastgc example FILE.npz` writes one to start from")
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # a zip's directory can be damaged in more ways than can be listed
        raise CaseError(f"{path} is a damaged or truncated npz file: {error}") from error
    arrays = {}
    with archive:
        for key in archive.files:
            try:
                array = archive[key]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise CaseError(f"{key} in {path} cannot be read: {error}") from error
                raise CaseError(
                    f"{key} in {path} holds pickled objects, which are not read; "
                    "wanted an array of numbers: np.savez(path, X=X, Y=Y, **parameters, dW1=dW1, …)"
                ) from error
            except Exception as error:  # as above, for one member
                raise CaseError(f"{key} in {path} is damaged or truncated: {error}") from error
            if not isinstance(array, np.ndarray):
                raise CaseError(f"{key} in {path} is not an array")
            arrays[key] = array
    return arrays


def _numbers(array: NDArray[Any], key: str, kinds: str = "iuf") -> NDArray[Any]:
    try:
        real = as_real_array(array, key, kinds)
    except TypeError as error:
        raise CaseError(str(error)) from error
    if real.size == 0:
        raise CaseError(f"{key} has shape {real.shape}: it holds no numbers")
    return real


def _names(array: NDArray[Any] | None, key: str, default: str) -> str | list[str]:
    if array is None or array.ndim == 0:
        return _name(array, key, default)
    if array.dtype.kind != "U":
        raise CaseError(f"{key} has dtype {array.dtype}; wanted strings")
    return [str(name) for name in array.ravel()]


def _name(array: NDArray[Any] | None, key: str, default: str) -> str:
    if array is None:
        return default
    if array.dtype.kind != "U" or array.size != 1:
        raise CaseError(f"{key} has dtype {array.dtype} and shape {array.shape}; wanted a string")
    return str(array.item())


def _scalar(array: NDArray[Any] | None, key: str) -> float:
    if array is None:
        return 0.0
    if array.size != 1:
        raise CaseError(f"{key} has shape {array.shape}; wanted one number")
    return float(_numbers(array, key).item())

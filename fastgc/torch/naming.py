"""The report on a Network in the names of the module that it stands for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastgc.diagnosis.evidence import Diagnosis
from fastgc.layout import entry_name
from fastgc.report import Arrays, Entry, Report, TensorReport

# What the diagnosis says: W2[3, 7], dZ1, the X of the first layer; not the 2 of "W2.weight".
SYMBOL = re.compile(r"(?<![\w.])(?:(d?)([WbZA])(\d+)(?:\[(\d+), (\d+)\])?|(X)(?= in the place))")


@dataclass(frozen=True)
class Names:
    """What the layers of a Network are called in the module.

    Attributes:
        layers: the Linear layers' names, first to last; "" for the module itself.
    """

    layers: Sequence[str]

    def of(self, tensor: str) -> str:
        """``2.bias`` for ``b2``, where that is the layer 2's."""
        layer = self.layers[int(tensor[1:]) - 1]
        part = "weight" if tensor[0] == "W" else "bias"
        return f"{layer}.{part}" if layer else part

    def text(self, text: str) -> str:
        """A sentence about W1, b1, dZ1 as one about the module's tensors."""
        text = text.replace("in every dW and db", "in every gradient")
        return SYMBOL.sub(self._symbol, text).replace("the wrong the", "the wrong")

    def _symbol(self, match: re.Match[str]) -> str:
        d, kind, number, row, column, _ = match.groups()
        if kind is None:
            return "the inputs"
        l = int(number)
        if kind in "Wb" and 1 <= l <= len(self.layers):
            name = self.of(f"{kind}{l}")
            if row is not None:
                name = f"{name}[{row}]" if kind == "b" else f"{name}[{row}, {column}]"
        elif kind == "Z" and 1 <= l <= len(self.layers):
            name = f"the output of {self._layer(l)}"
        elif kind == "A" and 0 <= l < len(self.layers):
            name = f"the input of {self._layer(l + 1)}"
        else:
            return match[0]
        return f"the gradient of {name}" if d else name

    def _layer(self, l: int) -> str:
        name = self.layers[l - 1]
        return f"layer {name}" if name else "the module"


def renamed(report: Report, names: Names, order: Sequence[str], divisor: float) -> Report:
    """The report with the module's names and shapes: a bias has shape (n,).

    Args:
        report: on a Network.
        names: of its layers in the module.
        order: in which its tensors are to be listed, by the module's names.
        divisor: the Network's.
    """
    tensors = [_tensor(tensor, names, divisor) for tensor in report.tensors.values()]
    by_name = {tensor.name: tensor for tensor in tensors}
    return replace(
        report,
        tensors={name: by_name[name] for name in order if name in by_name},
        origin=None if report.origin is None else names.text(report.origin),
    )


def _tensor(tensor: TensorReport, names: Names, divisor: float) -> TensorReport:
    name = names.of(tensor.name)
    shape = tensor.shape[: 1 if tensor.name[0] == "b" else 2]
    return replace(
        tensor,
        name=name,
        shape=shape,
        worst=_entry(tensor.worst, name, len(shape)),
        diagnosis=_diagnosis(tensor.diagnosis, names, divisor),
        arrays=None if tensor.arrays is None else _arrays(tensor.arrays, shape),
    )


def _entry(entry: Entry, name: str, ndim: int) -> Entry:
    index = entry.index[:ndim]
    return replace(entry, name=entry_name(name, index), index=index)


def _diagnosis(said: Diagnosis | None, names: Names, divisor: float) -> Diagnosis | None:
    if said is None:
        return None
    if said.kind == "decay" and said.value is not None:
        rate = said.value / divisor  # as an optimizer's weight_decay counts it
        sign, than = ("+", "more") if rate > 0 else ("−", "less")
        text = (
            f"the numerical gradient {sign} {abs(rate):.4g} × the parameters: {than} weight decay"
        )
        return Diagnosis(said.kind, f"{text} than the loss has", rate)
    return replace(said, text=names.text(said.text))


def _arrays(arrays: Arrays, shape: tuple[int, ...]) -> Arrays:
    entries = arrays.analytic.shape if arrays.places is not None else shape
    return replace(
        arrays,
        shape=shape,
        analytic=arrays.analytic.reshape(entries),
        numerical=arrays.numerical.reshape(entries),
        uncertainty=arrays.uncertainty.reshape(entries),
        verdicts=arrays.verdicts.reshape(entries),
    )

"""Where a mistake starts: in backward order, the first tensor at fault."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fastgc.core.tree import Layout
from fastgc.core.verdict import AGREE, THRESHOLDS, UNRESOLVED, root_mean_square
from fastgc.diagnosis.evidence import SMALL, join
from fastgc.report.data import Diagnosis
from fastgc.verdicts.record import Findings

MOST = 3  # places that are named

#: Kinds that say by themselves where to look: at all gradients, not at one layer's.
GENERAL = ("precision", "stale", "clipped", "constant", "activation")
FACTORS = ("factor", "sign", "sum", "twice averaged")


def proven_right(layout: Layout, findings: Findings) -> frozenset[str]:
    """The tensors that agree, and most of them, zeros aside, with a resolved gradapprox.

    Zeros on both sides agree whatever the mistake above them, and so do entries at kinks.
    """
    names = set()
    for name, here in layout.tensors():
        codes, g, found = findings.codes[here], findings.grad[here], findings.gradapprox[here]
        if (codes >= UNRESOLVED).any():
            continue
        with np.errstate(all="ignore"):
            large = np.maximum(np.abs(g), np.abs(found)) > SMALL * root_mean_square(found)
            resolved = findings.uncertainty[here] <= THRESHOLDS.resolution * np.abs(found)
        if 2 * np.count_nonzero(large & resolved & (codes == AGREE)) > np.count_nonzero(large):
            names.add(name)
    return frozenset(names)


def origin(
    names: Sequence[str],
    faulty: Sequence[str],
    diagnoses: Mapping[str, Diagnosis],
    proven: Collection[str],
) -> str | None:
    """A sentence a line; None where there is nothing to be said.

    Args:
        names: of all tensors, in the order of the parameters.
        faulty: of those that are wrong.
        diagnoses: of those, by name.
        proven: names of those that are right and prove it, as `proven_right` tells.
    """
    if not faulty or all(name in diagnoses and diagnoses[name].kind in GENERAL for name in faulty):
        return None
    depth = len(names) // 2
    if set(names) == {f"{kind}{l}" for l in range(1, depth + 1) for kind in "Wb"}:
        return "\n".join(_of_layers(depth, set(faulty), diagnoses, set(proven)))
    return _of_any(names, set(faulty), set(proven))


def _of_layers(
    depth: int, faulty: set[str], diagnoses: Mapping[str, Diagnosis], proven: set[str]
) -> list[str]:
    found: list[str] = []
    # a right gradient proves every dZ from its layer up; below that, nothing does
    lowest = min((int(name[1:]) for name in proven), default=depth + 1)
    for l in range(depth, 0, -1):
        pair = f"W{l}", f"b{l}"
        here = [name for name in pair if name in faulty]
        if not here or all(_follows(name, l, diagnoses) for name in here):
            continue
        if l < lowest:
            found.append(_of_unproven(l, lowest, depth, faulty, diagnoses, proven))
            break  # nothing below can be told from what follows
        beside = [name for name in pair if name in proven]
        formed = join([f"d{name}" for name in here])
        if beside:
            found.append(f"{beside[0]} is right, so dZ{l} is: look at how {formed} is formed.")
        else:
            below = [f"{kind}{k}" for k in range(1, l) for kind in "Wb"]
            right = [name for name in below if name in proven]
            verb = "is" if len(right) == 1 else "are"
            found.append(
                f"{join(right)}, below, {verb} right, so dZ{l} is: look at how {formed} "
                f"{'is' if len(here) == 1 else 'are'} formed."
            )
        if len(found) == MOST:
            break
    return found


def _of_unproven(
    l: int,
    lowest: int,
    depth: int,
    faulty: set[str],
    diagnoses: Mapping[str, Diagnosis],
    proven: set[str],
) -> str:
    """Of layer l, the last that is wrong, where nothing proves dZ_l, nor the dZ above it, right."""
    here = [name for name in (f"W{l}", f"b{l}") if name in faulty]
    down = [f"{kind}{k}" for k in range(1, l + 1) for kind in "Wb"]
    if l > 1 and faulty.issuperset(down):
        text = f"Everything from W{l} down is wrong"
    else:
        text = f"{join(here)} {'is' if len(here) == 1 else 'are'} wrong"
    above = [f"{kind}{k}" for k in range(l + 1, depth + 1) for kind in "Wb"]
    right = [name for name in above if name in proven]
    # what stands between, or beside, and neither is wrong nor proves anything
    silent = [f"{kind}{k}" for k in range(l, min(lowest, depth + 1)) for kind in "Wb"]
    silent = [name for name in silent if name not in faulty and name not in proven]
    if right:
        text += f"; {join(right)} {'is' if len(right) == 1 else 'are'} right"
    if silent:
        text += f"; {join(silent)} {'proves' if len(silent) == 1 else 'prove'} nothing"
    suspects = [f"dZ{k}" for k in range(min(lowest, depth + 1) - 1, l - 1, -1)]
    suspects += [f"d{name}" for name in here] if len(here) == 1 else []
    verb = "is" if len(suspects) == 1 else "are"
    text += f": look at how {join(suspects)} {verb} formed"
    kinds = {diagnoses[name].kind for name in here if name in diagnoses}
    if l > 1 and len(here) == 2 and kinds and kinds <= set(FACTORS):
        text += ", or for the same factor in every dW and db"
    return f"{text}."


def _follows(name: str, l: int, diagnoses: Mapping[str, Diagnosis]) -> bool:
    """Whether a tensor is off because the layer above is: made of it, or by the same factor."""
    if name not in diagnoses:
        return False
    above = [diagnoses.get(f"{kind}{l + 1}") for kind in "Wb"]
    return diagnoses[name].kind == "follows" or all(said == diagnoses[name] for said in above)


def _of_any(names: Sequence[str], faulty: set[str], proven: set[str]) -> str | None:
    last = max(i for i, name in enumerate(names) if name in faulty)
    after = [*names[last + 1 :]]
    if len(names) < 2 or not after:
        return None
    text = f"Backwards, {names[last]} is the first that is wrong"
    right = [name for name in after if name in proven]
    for those, one, many in (
        (right, "is right", "are right"),
        ([name for name in after if name not in proven], "proves nothing", "prove nothing"),
    ):
        if those:
            which = f"{len(those)} after it"
            if len(those) <= 4:
                which = join(those)
            elif len(those) == len(after):
                which = f"the {which}"
            text += f"; {which} {one if len(those) == 1 else many}"
    return f"{text}."

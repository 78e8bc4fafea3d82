"""Where a mistake starts: in backward order, the first tensor at fault."""

import re
from collections.abc import Mapping, Sequence

from fastgc.diagnosis.evidence import Diagnosis
from fastgc.diagnosis.kinds import join

MOST = 3  # places that are named

#: Kinds that say by themselves where to look: at all gradients, not at one layer's.
GENERAL = ("precision", "stale", "clipped", "constant")
FACTORS = ("factor", "sign", "sum", "twice averaged")


def origin(
    names: Sequence[str], faulty: Sequence[str], diagnoses: Mapping[str, Diagnosis]
) -> str | None:
    """A sentence a line; None where there is nothing to be said.

    Args:
        names: of all tensors, in the order of the parameters.
        faulty: of those that are wrong.
        diagnoses: of those, by name.
    """
    if not faulty or all(name in diagnoses and diagnoses[name].kind in GENERAL for name in faulty):
        return None
    depth = len(names) // 2
    if re.fullmatch(r"(W\d+ b\d+ ?)+", " ".join(_by_layer(names))) and set(names) == {
        f"{kind}{l}" for l in range(1, depth + 1) for kind in "Wb"
    }:
        return "\n".join(_of_layers(depth, set(faulty), diagnoses))
    return _of_any(names, set(faulty))


def _by_layer(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (name[1:].rjust(9), name[:1] != "W"))


def _of_layers(depth: int, faulty: set[str], diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    found: list[str] = []
    for l in range(depth, 0, -1):
        here = [name for name in (f"W{l}", f"b{l}") if name in faulty]
        if not here or all(_follows(name, l, diagnoses) for name in here):
            continue
        below = [f"{kind}{k}" for k in range(1, l) for kind in "Wb"]
        above = [f"{kind}{k}" for k in range(l + 1, depth + 1) for kind in "Wb"]
        right_above = [name for name in above if name not in faulty]
        if len(here) == 1:
            other = f"{'b' if here[0][0] == 'W' else 'W'}{l}"
            found.append(f"{other} is right, so dZ{l} is: look at how d{here[0]} is formed.")
        elif any(name not in faulty for name in below):
            right = join([name for name in below if name not in faulty])
            verb = "is" if right.count(" ") == 0 else "are"
            found.append(
                f"{right}, below, {verb} right, so dZ{l} is: "
                f"look at how dW{l} and db{l} are formed."
            )
        else:
            what = f"Everything from W{l} down is" if l > 1 else "W1 and b1 are"
            if right_above and len(right_above) == len(above):
                what += f" wrong; {join(right_above)} are right"
            else:
                what += " wrong"
            text = f"{what}: look at how dZ{l} is formed"
            kinds = {diagnoses[name].kind for name in here if name in diagnoses}
            if l > 1 and kinds and kinds <= set(FACTORS):
                text += ", or for the same factor in every dW and db"
            found.append(f"{text}.")
            break  # nothing below can be told from what follows
        if len(found) == MOST:
            break
    return found


def _follows(name: str, l: int, diagnoses: Mapping[str, Diagnosis]) -> bool:
    """Whether a tensor is off because the layer above is: made of it, or by the same factor."""
    if name not in diagnoses:
        return False
    above = [diagnoses.get(f"{kind}{l + 1}") for kind in "Wb"]
    return diagnoses[name].kind == "follows" or all(said == diagnoses[name] for said in above)


def _of_any(names: Sequence[str], faulty: set[str]) -> str | None:
    last = max(i for i, name in enumerate(names) if name in faulty)
    after = [*names[last + 1 :]]
    if len(names) < 2 or not after:
        return None
    right = join(after) if len(after) <= 4 else f"the {len(after)} after it"
    verb = "is" if len(after) == 1 else "are"
    return f"Backwards, {names[last]} is the first that is wrong; {right} {verb} right."

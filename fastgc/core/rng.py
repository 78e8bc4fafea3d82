"""Random numbers of fastgc's own."""

import numpy as np

# Parameters, and errors that are planted in gradients, are often drawn by np.random.default_rng(0).
# Directions drawn from that stream are the same numbers, and nothing that is said of random ones
# holds of them.
SALT = 0x66617374_67630001


def generator(*numbers: int) -> np.random.Generator:
    """A generator for these numbers; its stream is no other's that is likely to be at hand."""
    return np.random.default_rng([SALT, *numbers])

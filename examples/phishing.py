"""Phishing web sites: 1,250 pages by nine signs, such as a popular name or a popup window.

Source: N. Abdelhamid, A. Ayesh, F. Thabtah, "Phishing detection based Associative Classification
data mining", 2014, in the UCI repository as "Website Phishing". The package river ships a copy,
which is read here without river itself being loaded.
"""

import gzip
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TRAINED_ON = 1000  # pages; the others are held out


class Data(NamedTuple):
    """A column for each page: its signs X (9, m), scaled, and whether it is phishing, Y (1, m)."""

    X: Array
    Y: Array


def load(rng: np.random.Generator) -> tuple[Data, Data]:
    """The pages to train on, and those held out, drawn at random."""
    try:
        path = distribution("river").locate_file("river/datasets/phishing.csv.gz")
    except PackageNotFoundError:
        sys.exit('the data come with river: pip install "fastgc[examples]"')
    with gzip.open(str(path), "rt") as file:
        table = rng.permutation(np.loadtxt(file, delimiter=",", skiprows=1))
    signs, phishing = table[:, :-1], table[:, -1:]
    signs = (signs - signs[:TRAINED_ON].mean(axis=0)) / signs[:TRAINED_ON].std(axis=0)
    return (
        Data(signs[:TRAINED_ON].T, phishing[:TRAINED_ON].T),
        Data(signs[TRAINED_ON:].T, phishing[TRAINED_ON:].T),
    )

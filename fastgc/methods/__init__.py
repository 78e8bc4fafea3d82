"""The methods by name, one file for each."""

from fastgc.methods.incremental import INCREMENTAL
from fastgc.methods.interface import Approximation, Base, Method, Resources
from fastgc.methods.loop import LOOP
from fastgc.methods.node import NODE
from fastgc.methods.stacked import STACKED

__all__ = ["METHODS", "Approximation", "Base", "Method", "Resources"]

METHODS: dict[str, Method] = {
    "loop": LOOP,
    "stacked": STACKED,
    "incremental": INCREMENTAL,
    "node": NODE,
}

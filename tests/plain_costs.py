"""Costs that are plain functions, each with gradients whose verdict is known.

Derivatives appear here and nowhere in fastgc: right gradients come from backward passes written by
hand, which test_plain_costs.py holds against complex steps, or at kinks against the definition of a
subgradient. A new kind is a function with `plain` in one of the modules below.
"""

from tests import plain_kinks, plain_models, plain_noise, plain_scales, plain_zeros
from tests.plain_case import FACTORIES, Factory, PlainCost

MODULES = (plain_kinks, plain_scales, plain_zeros, plain_noise, plain_models)

#: Every kind of plain cost, by name.
PLAIN_COSTS: dict[str, Factory] = FACTORIES

__all__ = ["MODULES", "PLAIN_COSTS", "Factory", "PlainCost"]

"""What Hypothesis draws, and how much: networks of any shape, activation, loss and scale."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from fastgc.network.layers import ACTIVATIONS, LOSSES
from tests.cases import NetworkCase


def examples(count: int) -> settings:
    """`count` examples, or as many more or fewer as the profile says (see conftest)."""
    return settings(max_examples=max(1, count * settings().max_examples // 100))


def slow(*values: Any) -> Any:
    """A case of `parametrize` that `-m "not slow"` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    max_depth: int = 4,
    max_width: int = 7,
    max_samples: int = 9,
    min_scale: float = 0.1,
    max_scale: float = 3.0,
) -> NetworkCase:
    depth = draw(st.integers(1, max_depth))
    widths = draw(st.lists(st.integers(1, max_width), min_size=depth + 1, max_size=depth + 1))
    hidden = draw(
        st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=depth - 1, max_size=depth - 1)
    )
    return NetworkCase(
        name="drawn",
        widths=tuple(widths),
        m=draw(st.integers(1, max_samples)),
        activation=tuple(hidden),
        loss=draw(st.sampled_from(sorted(LOSSES))),
        weight_decay=draw(st.sampled_from([0.0, 0.3])),
        scale=draw(st.floats(min_scale, max_scale)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )

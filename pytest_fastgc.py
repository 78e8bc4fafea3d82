"""fastgc's pytest plugin: the fixture `gradcheck`, its options, and their defaults in the ini-file.

pytest loads it at every start, also where no test uses it. It lies beside the package, since what
lies within cannot be loaded without fastgc and NumPy; these load with the first option or check.
"""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastgc import Report

METHOD, TOLERANCE = "gradcheck-method", "gradcheck-tolerance"
DEFAULTS = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the options, on the command line and in the ini-file."""
    group = parser.getgroup("gradcheck", "gradient checking, with fastgc's fixture gradcheck")
    for name, metavar, text in (
        (METHOD, "METHOD", "method of the checks that name none: auto, loop, random, …"),
        (TOLERANCE, "NUMBER", "tolerance of the checks that name none; 2e-7 if not given"),
    ):
        group.addoption(f"--{name}", metavar=metavar, help=text)
        parser.addini(name.replace("-", "_"), help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options, so that a bad one ends the run before any test."""
    defaults: dict[str, Any] = {}
    for name, key, read in ((METHOD, "method", _method), (TOLERANCE, "tolerance", _tolerance)):
        ini = name.replace("-", "_")
        where, text = f"--{name}", config.getoption(ini)
        if text is None:
            where, text = ini, config.getini(ini) or None
        if text is None:
            continue
        try:
            defaults[key] = read(text)
        except ValueError as error:
            raise pytest.UsageError(f"{where}: {error}") from None
    config.stash[DEFAULTS] = defaults


@pytest.fixture(scope="session")
def gradcheck(pytestconfig: pytest.Config) -> "Callable[..., Report]":
    """`fastgc.assert_gradients`, with the method and the tolerance that this run was given.

    ``gradcheck(cost, parameters, gradients, **options)`` takes the options of `fastgc.check`, which
    win over ``--gradcheck-method`` and ``--gradcheck-tolerance``.
    """
    defaults = pytestconfig.stash[DEFAULTS]

    def gradcheck(cost: Any, parameters: Any, gradients: Any, **options: Any) -> "Report":
        __tracebackhide__ = True
        import fastgc

        return fastgc.assert_gradients(cost, parameters, gradients, **{**defaults, **options})

    return gradcheck


def _method(text: str) -> str:
    from fastgc.pipeline import require_method

    require_method(text)
    return text


def _tolerance(text: str) -> float:
    from fastgc.options import require_number

    try:
        number = float(text)
    except ValueError:
        raise ValueError(f'tolerance is "{text}"; wanted a number such as 2e-7') from None
    return require_number(number, "tolerance")

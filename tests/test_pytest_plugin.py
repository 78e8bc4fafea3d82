"""The pytest plugin, as pytest runs it: the fixture, the options, and what a failure looks like."""

import os
import re
import tomllib
from pathlib import Path

import pytest

import fastgc
from tests.shown import says
from tests.strategies import slow

ROOT = Path(__file__).parent.parent
PLUGIN = "pytest_fastgc"

COST = """
import numpy as np
import fastgc


def cost(p):
    return float((p["W1"] ** 2).sum() + (p["b1"] ** 3).sum())


parameters = {"W1": np.arange(6.0).reshape(2, 3) + 1, "b1": np.ones(2)}
right = {"W1": 2 * parameters["W1"], "b1": 3 * parameters["b1"] ** 2}
wrong = {**right, "W1": 2.0 * right["W1"]}
slightly = {**right, "W1": 1.0001 * right["W1"]}
"""


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """pytester drops what a run in this process loads; NumPy and SciPy cannot be loaded twice."""
    fastgc.check(lambda t: t * t, 3.0, 6.0, method="random")


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=COST + test)
    return pytester.runpytest("-p", PLUGIN, "-p", "no:cacheprovider", *options)


@pytest.mark.parametrize("checker", ["gradcheck", "fastgc.assert_gradients"])
@pytest.mark.parametrize("style", ["long", "short", "auto"])
def test_a_failure_is_the_report_and_no_frame_of_fastgc(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, checker: str, style: str
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    test = f"""
def test_wrong(gradcheck):
    {checker}(cost, parameters, wrong)
"""
    result = run(pytester, test, f"--tb={style}")
    result.assert_outcomes(failed=1)
    shown = result.stdout.str().split("FAILURES")[1].split("short test summary")[0]
    errors = [line[1:].strip() for line in shown.splitlines() if line.startswith("E ")]
    assert re.fullmatch(
        r"fastgc\.check\.GradientMismatch: wrong: W1 \(6 of 6 entries\) .*", errors[0]
    )
    assert says(errors, "W1: 2.000 ×")
    assert errors[-1].startswith("method loop, epsilon 1e-07, ")
    places = re.findall(r"^(\S+\.py):\d+", shown, re.MULTILINE)
    assert set(places) == {"test_it.py"}
    result.stdout.fnmatch_lines("FAILED *test_wrong - fastgc.check.GradientMismatch: wrong: W1*")


def test_cannot_tell_is_a_failure_that_says_so(pytester: pytest.Pytester) -> None:
    test = """
def test_hidden(gradcheck):
    gradcheck(lambda t: float(1e20 + t**2), 3.0, 6.0)
"""
    result = run(pytester, test)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("E * fastgc.check.GradientMismatch: cannot tell: *")


def test_it_returns_the_report_and_takes_the_options_of_check(pytester: pytest.Pytester) -> None:
    test = """
def test_report(gradcheck):
    report = gradcheck(cost, parameters, right, only=["b1"])
    assert report.ok and list(report.tensors) == ["b1"]
    assert (report.method, report.tolerance) == ("loop", 2e-7)


def test_bad_input(gradcheck):
    try:
        gradcheck(cost, parameters, right, tolerence=1)
    except TypeError as error:
        assert "tolerence" in str(error)
"""
    run(pytester, test).assert_outcomes(passed=2)


METHODS = """
def test_default(gradcheck):
    assert gradcheck(cost, parameters, slightly).method == "random"


def test_explicit(gradcheck):
    assert gradcheck(cost, parameters, right, method="loop", tolerance=1e-6).tolerance == 1e-6


def test_explicit_auto(gradcheck):
    assert gradcheck(cost, parameters, right, method="auto").method == "loop"
"""


def test_options_are_what_tests_leave_out(pytester: pytest.Pytester) -> None:
    options = ("--gradcheck-method=random", "--gradcheck-tolerance=1e-3")
    run(pytester, METHODS, *options).assert_outcomes(passed=3)
    # without the second, what is off by 1e-4 is wrong
    run(pytester, METHODS, options[0]).assert_outcomes(passed=2, failed=1)


def test_the_ini_file_is_what_the_command_line_leaves_out(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradcheck_method = random\ngradcheck_tolerance = 1e-3\n")
    run(pytester, METHODS).assert_outcomes(passed=3)
    result = run(pytester, METHODS, "--gradcheck-method=stacked")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines('*method?"stacked"*')


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--gradcheck-method=nod", '--gradcheck-method: method is "nod"'),
        ("--gradcheck-method=", '--gradcheck-method: method is ""'),
        ("--gradcheck-tolerance=tight", '--gradcheck-tolerance: tolerance is "tight"'),
        ("--gradcheck-tolerance=-1e-7", "--gradcheck-tolerance: tolerance is -1e-07"),
        ("--gradcheck-tolerance=nan", "--gradcheck-tolerance: tolerance is nan"),
        ("--override-ini=gradcheck_method=nod", 'gradcheck_method: method is "nod"'),
        ("--override-ini=gradcheck_tolerance=x", 'gradcheck_tolerance: tolerance is "x"'),
    ],
)  # fmt: skip
def test_bad_options_end_the_run_before_any_test(
    pytester: pytest.Pytester, option: str, message: str
) -> None:
    result = run(pytester, "\nraise SystemExit('collected')\n", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {message}" in result.stderr.str()
    assert "collected" not in result.stdout.str() + result.stderr.str()


def test_pyproject_declares_it_under_its_own_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
    assert f"{PLUGIN}.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert (ROOT / f"{PLUGIN}.py").exists()


NOTHING_LOADED = """
import sys


def test_nothing_is_loaded():
    assert not {"numpy", "fastgc", "numba"} & set(sys.modules)


def test_what_a_check_loads(request):
    gradcheck = request.getfixturevalue("gradcheck")
    assert "numpy" not in sys.modules
    assert gradcheck(lambda t: t * t, 3.0, 6.0).ok
    assert "numpy" in sys.modules and "numba" not in sys.modules
"""


def as_installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of its own for the processes that pytester starts, and no other plugin's."""
    info = pytester.mkdir("site") / "fastgc_of_the_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastgc-of-the-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{PLUGIN} = {PLUGIN}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(info.parent), str(ROOT)]))


def test_an_entry_point_loads_it_and_it_loads_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_installed(pytester, monkeypatch)
    pytester.makepyfile(NOTHING_LOADED)
    others = ("-p", "no:hypothesispytest", "-p", "no:benchmark")
    pytester.runpytest_subprocess(*others, "-W", "error").assert_outcomes(passed=2)


@pytest.mark.parametrize("twice", ["on the command line", slow("in a conftest")])
def test_loading_it_twice_is_loading_it_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, twice: str
) -> None:
    as_installed(pytester, monkeypatch)
    pytester.makepyfile("def test_it(gradcheck):\n    assert gradcheck(lambda t: t, 3.0, 1.0)\n")
    again = ["-p", PLUGIN, "-p", PLUGIN]
    if twice == "in a conftest":
        again = []
        pytester.makeconftest(f"pytest_plugins = [{PLUGIN!r}]\n")
    pytester.runpytest_subprocess(*again, "-W", "error").assert_outcomes(passed=1)


OTHERS = """
import pytest


@pytest.fixture
def gradcheck():
    return 5


def test_its_own_fixture(gradcheck):
    assert gradcheck == 5


def test_without():
    assert 1 + 1 == 2
"""


def test_runs_that_do_not_use_it_are_as_they_were(pytester: pytest.Pytester) -> None:
    run(pytester, OTHERS, "-W", "error", "--strict-config").assert_outcomes(passed=2)

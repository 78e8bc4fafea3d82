"""How the tests are run: what Hypothesis draws, and whether a test may be skipped.

Hypothesis draws anew at every run, but for CI, where the same commit gets the same answer; no
example fails for being slow, as any is now and then on a machine that does other things as well.
`-m "not slow"` draws a fifth of the examples, `--hypothesis-profile=long` a hundred times as many.
"""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ["pytester"]

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=10_000)  # 100 is the default
settings.load_profile("ci" if os.environ.get("CI") else "here")


class Skips:
    """Fails a run in which anything was skipped for another reason than a missing GPU.

    Benchmarks, which a run of the tests leaves out, are no tests.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._look(report)

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "GPU" not in reason and "--benchmark-skip active" not in reason:
            self.found.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        passed = pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED
        if self.found and session.exitstatus in passed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.found:
            terminalreporter.write_line(f"skipped, which --forbid-skips forbids: {line}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forbid-skips",
        action="store_true",
        help="fail if a test was skipped for another reason than a missing GPU",
    )
    parser.addoption(
        "--variants", type=int, default=0, help="which draws of each kind of plain cost are checked"
    )


def pytest_collection_finish() -> None:
    if "torch" in sys.modules:  # on tensors this small threads wait for each other, mostly
        sys.modules["torch"].set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("markexpr") == "not slow" and not config.getoption("--hypothesis-profile"):
        settings.register_profile("quick", settings(), max_examples=20)
        settings.load_profile("quick")
    if config.getoption("--forbid-skips"):
        config.pluginmanager.register(Skips())

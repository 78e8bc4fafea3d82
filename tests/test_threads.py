"""Threads: work is shared out whole, errors come back, and the process is left as it was."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import fastgc
from fastgc.parallel import threads
from fastgc.parallel.threads import available_cores, one_blas_thread, share
from tests.cases import ENTRYWISE, TIMED_NETWORKS, NetworkCase, backward


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_number_is_drawn_once(workers: int) -> None:
    drawn: list[int] = []
    share(lambda numbers: drawn.extend(numbers), 100, workers)
    assert sorted(drawn) == list(range(100))


def test_one_worker_is_the_calling_thread() -> None:
    names: list[str] = []
    share(lambda _: names.append(threading.current_thread().name), 3, 1)
    assert names == [threading.current_thread().name]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_exception_stops_the_others_and_comes_back(workers: int) -> None:
    drawn: list[int] = []

    def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            drawn.append(number)
            if number == 5:
                raise ZeroDivisionError("at five")

    with pytest.raises(ZeroDivisionError, match="at five"):
        share(work, 10**6, workers)
    assert len(drawn) < 10**6
    seen = len(drawn)
    share(lambda numbers: drawn.extend(numbers), 2, workers)  # the pool is usable, nothing lingers
    assert len(drawn) == seen + 2


def test_ctrl_c_while_threads_start_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = threads._shared_pool()
    futures: list[Future[None]] = []

    def submit(*arguments: Any) -> Any:
        if futures:
            raise KeyboardInterrupt
        futures.append(ThreadPoolExecutor.submit(pool, *arguments))
        return futures[0]

    monkeypatch.setattr(pool, "submit", submit)
    drawn: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        share(lambda numbers: drawn.extend(numbers), 10**7, 2)
    assert futures[0].done()
    assert len(drawn) < 10**7
    with pytest.raises(RuntimeError, match="after shutdown"):
        ThreadPoolExecutor.submit(pool, print)
    share(lambda numbers: drawn.extend(numbers), 2, 2)  # on threads of a new pool
    assert drawn[-1] in (0, 1)


def _blas_threads() -> list[int]:
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


def test_blas_is_held_to_one_thread_and_let_go() -> None:
    before = _blas_threads()
    with one_blas_thread():
        assert set(_blas_threads()) <= {1}
        with one_blas_thread():
            pass
        assert set(_blas_threads()) <= {1}
    assert _blas_threads() == before
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert _blas_threads() == before


@pytest.mark.parametrize("method", ENTRYWISE)
def test_eight_threads_at_once_get_the_same_bits(method: str) -> None:
    case = NetworkCase("shared", (6, 20, 10, 12, 1), 16)
    net, parameters = case.build()
    gradients = backward(net, parameters)
    wanted = fastgc.check(net, parameters, gradients, threads=1, method=method).to_dict()
    before = _blas_threads()
    with ThreadPoolExecutor(8) as pool:
        checks = [
            pool.submit(fastgc.check, net, parameters, gradients, method=method) for _ in range(16)
        ]
        reports = [check.result() for check in checks]
    assert _blas_threads() == before
    for report in reports:
        assert {**report.to_dict(), "seconds": 0} == {**wanted, "seconds": 0}


def test_a_network_is_checked_on_several_threads() -> None:
    net, parameters = TIMED_NETWORKS[0].build()
    for method in ("stacked", "incremental", "node"):
        found = fastgc.numerical_gradient(net, parameters, threads=3, method=method)
        alone = fastgc.numerical_gradient(net, parameters, threads=1, method=method)
        for name, value in alone.items():
            assert np.array_equal(found[name], value)


@pytest.mark.parametrize("method", [name for name in ENTRYWISE if name != "loop"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_the_same_bits(method: str) -> None:
    net, parameters = TIMED_NETWORKS[0].build()
    gradient = partial(fastgc.numerical_gradient, net, parameters, threads=2, method=method)
    wanted = gradient()["W1"]  # the parent's pool runs
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # no pytest, no cleanup: only the answer
        try:
            found = gradient()["W1"]
            os.write(write, b"1" if np.array_equal(found, wanted) else b"0")
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"1"
    os.waitpid(child, 0)
    os.close(read)


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)

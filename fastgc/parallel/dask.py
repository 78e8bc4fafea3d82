"""Dask's executor, through its public `submit`: what it takes beyond that of others."""

import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

from fastgc.parallel.worker import Outcome, Unread, run

# A task costs Dask 6 ms, partly of the workers' own cores: over two workers chunks of 0.2 s took
# 2.2 s in all, of 0.4 s 1.6.
SECONDS = 1.0  # of a chunk
# A future does not end whose result was lost with its worker, and then the next worker as well.
PATIENCE = 300.0  # seconds without a result


def is_dask(executor: Executor) -> bool:
    """Whether it is what a Dask client's get_executor() returns."""
    module = sys.modules.get("distributed.cfexecutor")
    return module is not None and isinstance(executor, module.ClientExecutor)


def submit(executor: Any, address: str | None, *task: Any) -> "Future[Outcome]":
    """Has a worker do the task: the one at `address`, where that is given and still lives."""
    submit: Callable[..., Future[Outcome]] = partial(executor.submit, _run, *task, pure=False)
    if address is None:
        return submit()
    with warnings.catch_warnings():  # it has the subject in it, once for each worker
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        return submit(workers=[address], allow_other_workers=True)


def dumps(subject: Any, **options: Any) -> bytes:
    """Its pickle; that of lambdas and closures too."""
    import cloudpickle  # type: ignore[import-untyped, unused-ignore]  # Dask's own

    pickled: bytes = cloudpickle.dumps(subject, **options)
    return pickled


def _run(*task: Any) -> Outcome:
    outcome = run(*task)
    if isinstance(outcome, Unread):
        from distributed import get_worker

        return Unread(get_worker().address)
    return outcome

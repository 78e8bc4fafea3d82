"""What only a fresh process shows: import, first compilation, a first check, memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent

CHECK = """
import fastgc
from tests.cases import TIMED_NETWORKS, NETWORKS, backward
case = NETWORKS[0] if {lab} else next(c for c in TIMED_NETWORKS if c.widths == (784, 512, 256, 1))
net, parameters = case.build()
assert fastgc.check(net, parameters, backward(net, parameters))
"""

COMPILE = """
import json, time
import fastgc
began = time.perf_counter()
import numba
imported = time.perf_counter()
from fastgc.response import kernels
kernels()
print(json.dumps([imported - began, time.perf_counter() - imported]))
"""

MEMORY = """
import json, resource
import fastgc
from pathlib import Path
from tests.cases import TIMED_NETWORKS, NETWORKS, backward

def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

net, parameters = NETWORKS[0].build()
assert fastgc.check(net, parameters, backward(net, parameters), method="{method}")
small = rss()
case = next(c for c in TIMED_NETWORKS if c.widths == (784, 512, 256, 1))
net, parameters = case.build()
gradients = backward(net, parameters)
held = sum(v.nbytes for d in (parameters, gradients) for v in d.values()) + net.X.nbytes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
assert fastgc.check(net, parameters, gradients, method="{method}")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([peak - small - held, held]))
"""


def _run(program: str, folder: Path) -> tuple[str, float]:
    """What `program` prints in a fresh process, and the seconds that takes, all told."""
    # bytecode and kernels are kept, as for an installed package
    environment = {
        **os.environ,
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "NUMBA_CACHE_DIR": str(folder / "kernels"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return run.stdout, time.perf_counter() - began


def import_times(rounds: int = 15) -> tuple[float, float, float]:
    """Seconds to import numpy and fastgc, and the median ratio of the pairs."""
    program = (
        "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as name:

        def once(module: str) -> float:
            return float(_run(program.format(module), Path(name))[0])

        once("fastgc")
        pairs = [(once("numpy"), once("fastgc")) for _ in range(rounds)]
    return (
        median(n for n, _ in pairs),
        median(f for _, f in pairs),
        median(f / n for n, f in pairs),
    )


def first_use() -> dict[str, float]:
    """Seconds: Numba's import, compilation, then whole processes that find it all in the cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run("import fastgc, numba", folder)  # bytecode
        imported, compiled = json.loads(_run(COMPILE, folder)[0])
        found = {"importing Numba": imported, "compiling the kernels, once": compiled}
        for label, lab in (("the lab's network", True), ("784-512-256-1, m = 32", False)):
            program = CHECK.format(lab=lab)
            _run(program, folder)
            times = [_run(program, folder)[1] for _ in range(5)]
            found[f"a fresh process that checks {label}"] = median(times)
    return found


def memory_of_check() -> dict[str, Any]:
    """Bytes above parameters, gradients and data that a check of 784-512-256-1 takes, by method."""
    with tempfile.TemporaryDirectory() as name:
        _run(MEMORY.format(method="node"), Path(name))
        return {
            method: json.loads(_run(MEMORY.format(method=method), Path(name))[0])[0]
            for method in ("node", "incremental")
        }

"""What only a fresh process shows: import, first compilation, a first check, memory."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent

IMPORT = """
import time{before}
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""

CHECK = """
import fastgc
from tests.cases import TIMED_NETWORKS, NETWORKS, backward
case = NETWORKS[0] if {lab} else next(c for c in TIMED_NETWORKS if c.widths == (784, 512, 256, 1))
net, parameters = case.build()
assert fastgc.check(net, parameters, backward(net, parameters))
"""

MEMORY = """
import fastgc
from pathlib import Path
from tests.cases import TIMED_NETWORKS, NETWORKS, backward

def memory(kind):  # not ru_maxrss, which may be that of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))

net, parameters = NETWORKS[0].build()
assert fastgc.check(net, parameters, backward(net, parameters), method="{method}")
small = memory("VmRSS")
case = next(c for c in TIMED_NETWORKS if c.widths == (784, 512, 256, 1))
net, parameters = case.build()
gradients = backward(net, parameters)
held = sum(v.nbytes for d in (parameters, gradients) for v in d.values()) + net.X.nbytes
assert fastgc.check(net, parameters, gradients, method="{method}")
print(memory("VmHWM") - small - held)
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
    with tempfile.TemporaryDirectory() as name:

        def once(module: str) -> float:
            return float(_run(IMPORT.format(before="", module=module), Path(name))[0])

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
        numba = IMPORT.format(before=", fastgc", module="numba")
        _run(numba, folder)  # bytecode
        found = {"importing Numba": float(_run(numba, folder)[0])}
        for label, lab in (("the lab's network", True), ("784-512-256-1, m = 32", False)):
            program = CHECK.format(lab=lab)
            first, *others = (_run(program, folder)[1] for _ in range(6))
            found.setdefault("compiling the kernels, once", first - median(others))
            found[f"a fresh process that checks {label}"] = median(others)
    return found


def memory_of_check() -> dict[str, float]:
    """Bytes above parameters, gradients and data that a check of 784-512-256-1 takes, by method."""
    with tempfile.TemporaryDirectory() as name:
        _run(MEMORY.format(method="node"), Path(name))
        return {
            method: float(_run(MEMORY.format(method=method), Path(name))[0])
            for method in ("node", "incremental")
        }

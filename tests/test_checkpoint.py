"""checkpoint=: a check that was killed goes on where it was, and ends with the same result."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgc
from fastgc.parallel.checkpoint import Checkpoint, digest
from tests.cases import NetworkCase, backward

# Python 3.12 warns of any fork beside threads
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

THETA = np.random.default_rng(0).standard_normal(60)
GRADIENTS = np.cos(THETA)
WRONG = GRADIENTS * np.where(np.arange(60) % 7, 1.0, 1.01)
CASE = NetworkCase("kept", (6, 20, 10, 1), 16)


class Killed(BaseException):
    """What ends a process, other than Ctrl-C."""


class Counted:
    """A cost that counts its calls, and breaks off at one of them."""

    def __init__(self, last: int | None = None, error: BaseException | None = None) -> None:
        self.calls, self.last, self.error = 0, last, error or Killed()

    def __call__(self, theta: Any) -> float:
        self.calls += 1
        if self.calls == self.last:
            raise self.error
        return float(np.sin(theta).sum())


def rows(theta: Any) -> Any:
    return np.sin(theta).sum(axis=1)


def plain(report: fastgc.Report) -> dict[str, Any]:
    return {**report.to_dict(), "seconds": 0}


def done_items(path: Path, mode: str = "immutable=1") -> int:
    """How many items the file holds results of; whoever has it open, in the midst of a saving too.

    Once it is closed, mode=rw undoes a saving that was broken off, as a check does.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?{mode}", uri=True)) as connection:
            return int(connection.execute("SELECT SUM(stop - first) FROM chunk").fetchone()[0] or 0)
    except sqlite3.Error:  # there is none yet
        return 0


@contextmanager
def opened(path: Path, interval: float = 2.0) -> Iterator[Checkpoint]:
    with closing(Checkpoint(path, interval)) as checkpoint:
        checkpoint.identify({"the test": (1,)})
        checkpoint.begin(("a pass",))
        yield checkpoint


@pytest.mark.parametrize("error", [Killed(), KeyboardInterrupt()])
@pytest.mark.parametrize("gradients", [GRADIENTS, WRONG], ids=["right", "wrong"])
def test_it_goes_on_where_it_broke_off(
    tmp_path: Path, gradients: Any, error: BaseException
) -> None:
    path = tmp_path / "run"
    whole = Counted()
    wanted = fastgc.check(whole, THETA, gradients)
    last = 127 if gradients is GRADIENTS else 138  # amid the first look, or the second
    again = Counted(last=last, error=error)
    with pytest.raises(type(error)) as raised:
        fastgc.check(again, THETA, gradients, checkpoint=path)
    told = any(str(path) in note for note in getattr(raised.value, "__notes__", ()))
    assert told is isinstance(error, KeyboardInterrupt)
    assert path.exists()
    rest = Counted()
    assert plain(fastgc.check(rest, THETA, gradients, checkpoint=path)) == plain(wanted)
    assert rest.calls <= whole.calls - 18
    # all is known now, and serves a check of mended gradients
    all_known = Counted()
    assert plain(fastgc.check(all_known, THETA, gradients, checkpoint=str(path))) == plain(wanted)
    mended = fastgc.check(all_known, THETA, GRADIENTS, checkpoint=path)
    assert mended.ok
    found = fastgc.numerical_gradient(all_known, THETA, checkpoint=path)
    assert np.array_equal(found, fastgc.numerical_gradient(Counted(), THETA))
    assert all_known.calls <= 3 * (whole.calls - 120)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("method", ["loop", "stacked", "random", "incremental", "node"])
def test_every_method_has_the_same_bits(tmp_path: Path, method: str) -> None:
    net, parameters = CASE.build()
    X = net.X.copy()
    X[:, 0] = parameters["b1"][:] = 0.0  # corners
    net = fastgc.Network(X, net.Y)
    right = backward(net, parameters)
    wrong = {name: value * (1.1 if name == "W2" else 1.0) for name, value in right.items()}
    for gradients in (right, wrong):
        check = partial(fastgc.check, net, parameters, gradients, method=method)
        wanted = plain(check())
        path = tmp_path / f"run{gradients is wrong}.ckpt"
        assert plain(check(checkpoint=path)) == wanted
        assert plain(check(checkpoint=path)) == wanted
        if method != "stacked":
            with ThreadPoolExecutor(2) as pool:
                assert plain(check(checkpoint=path, executor=pool)) == wanted
                assert plain(check(checkpoint=tmp_path / "new", executor=pool)) == wanted
            (tmp_path / "new").unlink()


def test_processes_bring_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with ProcessPoolExecutor(2) as executor:
        for gradients in (-np.sin(THETA), WRONG):
            check = partial(fastgc.check, other, THETA, gradients)
            assert plain(check(checkpoint=path, executor=executor)) == plain(check())
    assert plain(check(checkpoint=path)) == plain(check())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_stacks_go_on_too(tmp_path: Path) -> None:
    check = partial(fastgc.check, rows, THETA, WRONG, vectorized=True, memory=32_000)
    wanted = plain(check())
    for _ in range(2):
        assert plain(check(checkpoint=tmp_path / "run")) == wanted


def test_stacks_of_another_size_start_anew(tmp_path: Path) -> None:
    calls = 0

    def breaks_off(theta: Any) -> Any:
        nonlocal calls
        calls += len(theta)
        if calls > 100:
            raise Killed
        return rows(theta)

    find = partial(fastgc.numerical_gradient, vectorized=True, checkpoint=tmp_path / "run")
    with pytest.raises(Killed):
        find(breaks_off, THETA, memory=32_000)
    assert done_items(tmp_path / "run") > 0
    found = find(rows, THETA, memory=34_000)  # as many blocks, of eleven entries instead of ten
    assert np.array_equal(found, fastgc.numerical_gradient(rows, THETA, vectorized=True))


class Interrupted(ThreadPoolExecutor):
    """Takes three tasks, then Ctrl-C comes."""

    taken = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.taken += 1
        if self.taken > 3:
            raise KeyboardInterrupt
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize("method", ["incremental", "node"])
def test_chunks_of_the_kernels_are_put_together(tmp_path: Path, method: str) -> None:
    net, parameters = CASE.build()
    find = partial(fastgc.numerical_gradient, net, parameters, method=method)
    path = tmp_path / "run"
    with Interrupted(1) as executor, pytest.raises(KeyboardInterrupt):
        find(checkpoint=path, executor=executor)
    first = done_items(path)
    found, wanted = find(checkpoint=path), find()
    assert 0 < first < done_items(path)
    for name, value in wanted.items():
        assert np.array_equal(found[name], value)


SCRIPT = """
import sys, time, numpy as np, fastgc
calls = 0
def cost(theta):
    global calls
    calls += 1
    time.sleep({pause})
    return float(np.sin(theta).sum())
theta = np.random.default_rng(0).standard_normal(60)
gradients = np.cos(theta) * np.where(np.arange(60) % 7, 1.0, 1.01)
report = fastgc.check(cost, theta, gradients, checkpoint={path!r})
print(calls, {{**report.to_dict(), "seconds": 0}})
"""


def wait_for_more(path: Path, than: int) -> None:
    deadline = time.monotonic() + 60
    while done_items(path) <= than:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    script = partial(SCRIPT.format, path=str(path))
    process = subprocess.Popen([sys.executable, "-c", script(pause=0.05)])
    wait_for_more(path, than=0)
    time.sleep(1.0)  # the saving is over
    first = done_items(path)
    wait_for_more(path, than=first)  # the next may not be
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    done = done_items(path, "mode=rw")
    assert done >= first > 0
    whole = Counted()
    wanted = plain(fastgc.check(whole, THETA, WRONG))
    run = subprocess.run(
        [sys.executable, "-c", script(pause=0.0)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    calls, _, report = run.stdout.partition(" ")
    assert report.strip() == str(wanted)
    assert int(calls) <= whole.calls - 2 * done
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]


SAVING = """
import sys, time, numpy as np
from fastgc.parallel.checkpoint import Checkpoint
checkpoint = Checkpoint(sys.argv[1], interval=0.0)
checkpoint.identify({"the test": (1,)})
checkpoint.begin(("a pass",))
done = {first for first, _, _ in checkpoint.finished()}
print("begun", flush=True)
for first in sorted(set(range(100_000)) - done):
    checkpoint.add(first, first + 1, np.full((4, 50), float(first)))
"""


def test_a_kill_at_any_moment_damages_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    rng, done = np.random.default_rng(0), -1
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.1 + 0.2 * rng.random())
        process.kill()
        process.communicate()
        with opened(path) as checkpoint:
            rows = {first: values for first, _, values in checkpoint.finished()}
        assert sorted(rows) == list(range(len(rows)))  # those before the last saving, all of them
        assert all((values == first).all() for first, values in rows.items())
        done, before = len(rows), done
        assert done >= before
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert done > 0


def test_no_two_checks_write_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with opened(path) as checkpoint:
        checkpoint.add(0, 1, np.ones(1))
        checkpoint.save()
        with pytest.raises(ValueError, match="in use"):
            fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)
        script = SCRIPT.format(pause=0.0, path=str(path))
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        assert run.returncode == 1
        assert b"in use" in run.stderr
    with opened(path) as checkpoint:
        assert len(list(checkpoint.finished())) == 1


def test_of_two_that_begin_a_file_the_second_is_refused(tmp_path: Path) -> None:
    first, second = Checkpoint(tmp_path / "run"), Checkpoint(tmp_path / "run")
    with closing(first), closing(second):
        first.identify({"the test": (1,)})
        with pytest.raises(ValueError, match="in use"):
            second.identify({"the test": (2,)})
        first.begin(("a pass",))
        first.add(0, 1, np.ones(1))
    with closing(Checkpoint(tmp_path / "run")) as third, pytest.raises(ValueError, match="another"):
        third.identify({"the test": (2,)})


def test_sqlite_is_loaded_for_a_checkpoint_alone() -> None:
    script = (
        "import sys, fastgc\n"
        "fastgc.check(lambda t: t**2, 3.0, 6.0)\n"
        "assert 'sqlite3' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def other(theta: Any) -> float:
    return float(np.cos(theta).sum())


@pytest.mark.parametrize(
    ("cost", "theta", "options", "differ"),
    [
        (other, THETA, {}, "the cost"),
        (Counted(), THETA + 1e-9, {}, "the parameters' values and the cost"),
        (Counted(), [THETA], {}, "the parameters' names and shapes"),
        (rows, THETA, {"vectorized": True}, "the method"),
    ],
)
def test_the_file_of_another_problem_is_refused(
    tmp_path: Path, cost: Any, theta: Any, options: dict[str, Any], differ: str
) -> None:
    path = tmp_path / "run.ckpt"
    fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"run\.ckpt.* differs in {differ}\."):
        fastgc.numerical_gradient(cost, theta, checkpoint=path, **options)
    assert path.read_bytes() == before


def test_other_directions_are_another_problem(tmp_path: Path) -> None:
    check = partial(
        fastgc.check, Counted(), THETA, WRONG, method="random", checkpoint=tmp_path / "run"
    )
    first = check()
    assert plain(check()) == plain(first)
    others: tuple[dict[str, Any], ...] = ({"seed": 1}, {"directions": 9}, {"method": "loop"})
    for options in others:
        with pytest.raises(ValueError, match="differs in the method"):
            check(**options)


def test_parts_share_a_file(tmp_path: Path) -> None:
    check = partial(fastgc.check, Counted(), THETA, WRONG, checkpoint=tmp_path / "run")
    every: tuple[dict[str, Any], ...] = (
        {},
        {"sample": 3},
        {"sample": 3, "seed": 1},
        {"only": "p*"},
    )
    for options in every:
        without = fastgc.check(Counted(), THETA, WRONG, **options)
        for _ in range(2):
            assert plain(check(**options)) == plain(without)


def test_the_data_of_a_network_belong_to_its_problem(tmp_path: Path) -> None:
    net, parameters = CASE.build()
    parameters = {name: 0 * value for name, value in parameters.items()}  # J(θ) = log 2 for any X
    fastgc.numerical_gradient(net, parameters, checkpoint=tmp_path / "run")
    changed = fastgc.Network(net.X + 1.0, net.Y)
    with pytest.raises(ValueError, match="differs in the Network"):
        fastgc.numerical_gradient(changed, parameters, checkpoint=tmp_path / "run")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "earlier.npz", format=np.array("fastgc checkpoint 1"), identity="{}")
    np.save(tmp_path / "other.npy", np.ones(3))
    (tmp_path / "text").write_text("theta = 3")
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE chunk (first INTEGER)")
    for name in ("earlier.npz", "other.npy", "text", "app.db"):
        cost, before = Counted(), (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=rf"{name}.* holds no checkpoint"):
            fastgc.check(cost, THETA, GRADIENTS, checkpoint=tmp_path / name)
        assert (cost.calls, (tmp_path / name).read_bytes()) == (0, before)


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "run").touch()  # as a kill leaves it before the first saving
    assert fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=tmp_path / "run").ok
    assert done_items(tmp_path / "run") == 60


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    cost = Counted()
    for path in (tmp_path / "no" / "run", tmp_path, ".", "a\0b", "x" * 10_000, "y" * 250):
        with pytest.raises(ValueError, match="cannot be written"):
            fastgc.check(cost, THETA, GRADIENTS, checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint is empty"):
        fastgc.check(cost, THETA, GRADIENTS, checkpoint="")
    for wrong in (3, True, b"run", ["run"]):
        with pytest.raises(TypeError, match=f"checkpoint is a {type(wrong).__name__}"):
            fastgc.check(cost, THETA, GRADIENTS, checkpoint=wrong)  # type: ignore[arg-type]  # the mistake under test

    class InBytes(os.PathLike[bytes]):
        def __fspath__(self) -> bytes:
            return b"run"

    with pytest.raises(TypeError, match="bytes"):
        fastgc.check(cost, THETA, GRADIENTS, checkpoint=InBytes())  # type: ignore[arg-type]  # the mistake under test
    assert cost.calls == 0


FULL = """
import resource, sys, numpy as np
from pathlib import Path
from fastgc.parallel.checkpoint import Checkpoint
checkpoint = Checkpoint(sys.argv[1], interval=0.0)
checkpoint.identify({"the test": (1,)})
checkpoint.begin(("a pass",))
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
checkpoint.add(0, 1, np.ones(100))
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1]).stat().st_size, limits[1]))
for first in range(1, 5):
    checkpoint.add(first, first + 1, np.ones(10_000))
    checkpoint.save()
if sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
checkpoint.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize("room", [False, True], ids=["full", "room again"])
def test_a_disk_that_fills_up_stops_no_check(tmp_path: Path, room: bool) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "run", *["room"] * room],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert run.stderr.count("RuntimeWarning") == 1
    assert "could not be saved" in run.stderr
    with opened(tmp_path / "run") as checkpoint:
        assert len(list(checkpoint.finished())) == (5 if room else 1)


READ_ONLY = """
import os, sys, numpy as np, fastgc, fastgc.parallel.checkpoint
calls = 0
def cost(theta):
    global calls
    calls += 1
    return float(np.sin(theta).sum())
theta = np.random.default_rng(0).standard_normal(60)
def check(**options):
    global calls
    calls = 0
    for right in (np.cos(theta), 1.1 * np.cos(theta)):
        fastgc.check(cost, theta, right, **options)
    return calls
without = check()
os.setuid(65534)  # for whom the file is read-only
assert not os.access(sys.argv[1], os.W_OK)
print(without, check(checkpoint=sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root")
def test_a_file_that_is_read_only_is_read() -> None:
    folder = Path("/tmp") / f"fastgc-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        path = folder / "run"
        fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)
        run = subprocess.run(
            [sys.executable, "-c", READ_ONLY, path], capture_output=True, text=True, check=True
        )
    finally:
        shutil.rmtree(folder)
    without, calls = map(int, run.stdout.split())
    assert calls == without - 4 * THETA.size
    assert run.stderr.count("RuntimeWarning: checkpoint") == 1  # of the second look


def test_a_file_that_is_gone_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with opened(path, interval=0.0) as checkpoint:
        checkpoint.add(0, 1, np.ones(1))
        path.unlink()
        checkpoint.add(1, 2, np.ones(1))
        with pytest.warns(RuntimeWarning, match="could not be saved"):
            checkpoint.save()
        checkpoint.add(2, 3, np.ones(1))
        checkpoint.save()  # any warning is an error


@pytest.mark.parametrize(("tick", "apart"), [(0.01, 2.0), (0.5, 10.0)])
def test_savings_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: float, apart: float
) -> None:
    """A look at the clock takes `tick`, a saving as long: at most a twentieth of the time."""
    now = [0.0]

    def clock() -> float:
        now[0] += tick
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)
    path, saved = tmp_path / "run", [0.0]
    with opened(path, interval=2.0) as checkpoint:
        first = 0
        while now[0] < 5 * apart:
            before = done_items(path)
            checkpoint.add(first, first + 1, np.ones(1))
            first += 1
            if done_items(path) > before:
                assert done_items(path) == first  # nothing is left for the next
                saved.append(now[0])
    assert np.diff(saved)[1:] == pytest.approx(apart, abs=3 * tick)
    assert len(saved) >= 4


def test_contents_are_told_apart() -> None:
    assert digest(np.zeros(2)) != digest(-np.zeros(2))
    assert digest(np.zeros((1, 2))) != digest(np.zeros((2, 1)))
    assert digest("a", "b") != digest("ab")
    assert digest("\ud800") != digest("\ud801")


def weighed(weights: Any, theta: Any) -> float:
    return float(weights @ theta)


@pytest.mark.parametrize("method", ["loop", "random"])
def test_another_cost_of_the_same_value_is_another_problem(tmp_path: Path, method: str) -> None:
    theta, one, other = np.arange(1.0, 5.0), np.arange(1.0, 5.0), np.array([4.0, 3.0, 4.0, 2.0])
    assert one @ theta == other @ theta
    check = partial(fastgc.check, method=method, checkpoint=tmp_path / "run")
    assert check(partial(weighed, one), theta, one).ok
    with pytest.raises(ValueError, match="differs in the cost"):
        check(partial(weighed, other), theta, one)


def test_another_step_along_directions_is_another_problem(tmp_path: Path) -> None:
    check = partial(fastgc.check, Counted(), THETA, WRONG, method="random")
    check(epsilon=8e-7, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="differs in the method"):
        check(epsilon=1e-7, checkpoint=tmp_path / "run")


@pytest.mark.filterwarnings("ignore:checkpoint=.* could not be saved:RuntimeWarning")
def test_a_damaged_file_is_refused_or_done_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)
    whole = path.read_bytes()
    wanted = plain(fastgc.check(Counted(), THETA, GRADIENTS))
    rng = np.random.default_rng(0)
    results = whole.index(
        np.float64(wanted["tensors"]["parameters"]["worst"]["numerical"]).tobytes()
    )
    for trial in range(300):
        damaged = bytearray(whole)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            place = rng.integers(len(whole)) if trial % 3 else results + int(rng.integers(6))
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        refusal = ""
        try:
            assert plain(fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)) == wanted
        except ValueError as error:
            refusal = str(error)
        assert not refusal or re.search("holds no checkpoint|differs in", refusal)


def test_nothing_else_in_the_folder_is_touched(tmp_path: Path) -> None:
    mine = tmp_path / "run.tmp"
    mine.write_text("mine")
    fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=tmp_path / "run")
    assert mine.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.tmp"]

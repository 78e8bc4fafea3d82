"""checkpoint=: a check that was killed goes on where it was, and ends with the same result."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgc
from fastgc.parallel import checkpoint as module
from fastgc.parallel.checkpoint import Checkpoint, digest
from tests.cases import NetworkCase, backward

ROOT = Path(__file__).parent.parent
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
    with pytest.raises(type(error)):
        fastgc.check(again, THETA, gradients, checkpoint=path)
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
        path = tmp_path / f"run{gradients is wrong}.npz"
        assert plain(check(checkpoint=path)) == wanted
        assert plain(check(checkpoint=path)) == wanted
        if method != "stacked":
            with ThreadPoolExecutor(2) as pool:
                assert plain(check(checkpoint=path, executor=pool)) == wanted
                assert plain(check(checkpoint=tmp_path / "new", executor=pool)) == wanted
            (tmp_path / "new").unlink()


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
    with np.load(tmp_path / "run") as stored:
        assert any(stored[name].any() for name in stored.files if name.endswith(".done"))
    found = find(rows, THETA, memory=34_000)  # as many blocks, of eleven entries instead of ten
    assert np.array_equal(found, fastgc.numerical_gradient(rows, THETA, vectorized=True))


def test_blocks_of_the_kernels_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, parameters = CASE.build()
    for method in ("incremental", "node"):
        wanted = fastgc.numerical_gradient(net, parameters, method=method)
        path = tmp_path / method
        saves: list[int] = []
        monkeypatch.setattr(module, "INTERVAL", 0.0)
        monkeypatch.setattr(module, "SHARE", 0)
        kept = Checkpoint.save

        def broken(self: Checkpoint, kept: Any = kept, saves: list[int] = saves) -> None:
            kept(self)
            saves.append(1)
            if len(saves) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", broken)
            with pytest.raises(KeyboardInterrupt):
                fastgc.numerical_gradient(net, parameters, method=method, checkpoint=path)
        stored = np.load(path)
        (done,) = [stored[name] for name in stored.files if name.endswith(".done")]
        assert 0 < done.sum() < done.size
        found = fastgc.numerical_gradient(net, parameters, method=method, checkpoint=path)
        for name, value in wanted.items():
            assert np.array_equal(found[name], value)


SCRIPT = """
import sys, time, numpy as np, fastgc
from fastgc.parallel import checkpoint
checkpoint.INTERVAL = 0.05
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


def test_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    script = partial(SCRIPT.format, path=str(path))
    process = subprocess.Popen([sys.executable, "-c", script(pause=0.02)])
    deadline = time.monotonic() + 60
    done = 0
    while done < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
        if path.exists():  # whole at any time
            with np.load(path) as stored:
                done = sum(int(stored[name].sum()) for name in stored.files if ".done" in name)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert done >= 20
    whole = Counted()
    wanted = plain(fastgc.check(whole, THETA, WRONG))
    run = subprocess.run(
        [sys.executable, "-c", script(pause=0.0)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    calls, _, report = run.stdout.partition(" ")
    assert report.strip() == str(wanted)
    assert int(calls) <= whole.calls - 2 * done


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
    path = tmp_path / "run.npz"
    fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError,
        match=rf'checkpoint="\S+run.npz" was written by another check, which differs in {differ}\. Name another file',
    ):
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
        with pytest.raises(ValueError, match="by another check, which differs in the method"):
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
    with pytest.raises(ValueError, match="another check, which differs in the Network"):
        fastgc.numerical_gradient(changed, parameters, checkpoint=tmp_path / "run")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=1)
    np.save(tmp_path / "other.npy", np.ones(3))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("theta = 3")
    for name in ("other.npz", "other.npy", "empty", "text"):
        cost, before = Counted(), (tmp_path / name).read_bytes()
        with pytest.raises(
            ValueError,
            match=rf'checkpoint="\S+{name}" is there already and holds no checkpoint .*'
            r"\. Name another file, or remove this one",
        ):
            fastgc.check(cost, THETA, GRADIENTS, checkpoint=tmp_path / name)
        assert (cost.calls, (tmp_path / name).read_bytes()) == (0, before)


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    cost = Counted()
    for path in (tmp_path / "no" / "run.npz", tmp_path, ".", "a\0b", "x" * 10_000):
        with pytest.raises(ValueError, match=r"cannot be written: .*\. Name a file in a folder"):
            fastgc.check(cost, THETA, GRADIENTS, checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint is empty; wanted a path such as"):
        fastgc.check(cost, THETA, GRADIENTS, checkpoint="")
    for wrong in (3, True, b"run.npz", ["run.npz"]):
        with pytest.raises(TypeError, match=r"checkpoint is a \w+; wanted a path such as"):
            fastgc.check(cost, THETA, GRADIENTS, checkpoint=wrong)  # type: ignore[arg-type]  # the mistake under test

    class InBytes(os.PathLike[bytes]):
        def __fspath__(self) -> bytes:
            return b"run.npz"

    with pytest.raises(TypeError, match="checkpoint is a path in bytes; wanted one in text"):
        fastgc.check(cost, THETA, GRADIENTS, checkpoint=InBytes())  # type: ignore[arg-type]  # the mistake under test
    assert cost.calls == 0


def test_a_disk_that_fills_up_stops_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    with pytest.warns(RuntimeWarning, match="could not be saved: No space left on device. The"):
        report = fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=tmp_path / "run")
    assert report.ok


def test_savings_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, saved = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def savez(*_: object, **__: object) -> None:
        saved.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr(np, "savez", savez)
    kept = Checkpoint(tmp_path / "run")
    for _ in range(300):
        kept.save_if_due()
        now[0] += 0.1
    assert saved == pytest.approx([2.0, 23.0], abs=0.11)


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


def test_a_damaged_file_is_refused_however_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run"
    fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)
    whole = path.read_bytes()
    wanted = plain(fastgc.check(Counted(), THETA, GRADIENTS))
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        refusal = ""
        try:
            assert plain(fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=path)) == wanted
        except ValueError as error:
            refusal = str(error)
        assert not refusal or re.search("holds no checkpoint|written by another check", refusal)


def test_nothing_else_in_the_folder_is_touched(tmp_path: Path) -> None:
    mine = tmp_path / "run.npz.tmp"
    mine.write_text("mine")
    fastgc.check(Counted(), THETA, GRADIENTS, checkpoint=tmp_path / "run.npz")
    assert mine.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.npz", "run.npz.tmp"]

"""The command line: what it prints where, and its exit status."""

import contextlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import fastgc
from fastgc.cli import main
from tests.shown import says
from tests.strategies import slow

ROOT = Path(__file__).parent.parent
Run = subprocess.CompletedProcess[str]


def process(*arguments: object, stdout: Any = subprocess.PIPE, **environment: str) -> Run:
    """What the program does in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fastgc", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        timeout=60,
    )


def fastgc_command(*arguments: object) -> Run:
    """What the program does, in this process."""
    argv = ["fastgc", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", argv),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return Run(argv, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("example") / "case.npz"
    run = process("example", path)
    assert (run.returncode, run.stderr) == (0, "")
    assert f"fastgc check {path}" in run.stdout
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def save(path: Path, arrays: dict[str, Any], **changes: Any) -> Path:
    kept = {key: value for key, value in {**arrays, **changes}.items() if value is not None}
    np.savez(path, **kept)
    return path


def one_line(text: str) -> str:
    assert text.startswith("fastgc: ")
    assert text.count("\n") == 1
    return text


def test_demo() -> None:
    run = process("demo")
    assert (run.returncode, run.stderr) == (0, "")
    first, second = run.stdout.split("2. Mended")
    assert "wrong: b1 and W2 (8 of 20 entries)" in first
    assert "difference 0.285093" in first
    assert "correct: 47 entries of W1, b1, W2, b2, W3 and b3" in second
    assert "fastgc check case.npz" in second
    assert "\x1b" not in run.stdout


def test_example_then_check(example: dict[str, Any], tmp_path: Path) -> None:
    assert set(example) == {
        "X", "Y", "W1", "b1", "W2", "b2", "W3", "b3", "dW1", "db1", "dW2", "db2", "dW3", "db3",
        "activation", "loss", "weight_decay",
    }  # fmt: skip
    run = process("check", save(tmp_path / "case.npz", example))
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("correct: 47 entries")


def test_faulty_example(tmp_path: Path) -> None:
    path = tmp_path / "wrong.npz"
    assert fastgc_command("example", path, "--faulty").returncode == 0
    run = fastgc_command("check", path)
    assert run.returncode == 1
    assert "wrong: b1 and W2 (8 of 20 entries)" in one_line(run.stderr)
    assert run.stdout.startswith("wrong: b1 and W2")


def test_example_leaves_a_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_text("mine")
    run = fastgc_command("example", path)
    assert run.returncode == 2
    assert "exists; it is left as it is" in one_line(run.stderr)
    assert path.read_text() == "mine"
    run = fastgc_command("example", tmp_path / "nowhere" / "case.npz")
    assert run.returncode == 2
    assert "cannot be written: No such file or directory" in one_line(run.stderr)


def test_json(example: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "case.npz", example, dW2=-example["dW2"])
    run = fastgc_command(
        "check", path, "--json", "--method", "loop", "--epsilon", "1e-6", "--tolerance", "1e-5"
    )
    assert run.returncode == 1
    one_line(run.stderr)
    data = json.loads(run.stdout)
    assert (data["method"], data["epsilon"], data["tolerance"]) == ("loop", 1e-6, 1e-5)
    assert [name for name, tensor in data["tensors"].items() if not tensor["ok"]] == ["W2"]


def test_cannot_tell(example: dict[str, Any], tmp_path: Path) -> None:
    # the weights of an input that is always 0 decay from 10¹², which hides all else
    X, W1, dW1 = example["X"].copy(), example["W1"].copy(), example["dW1"].copy()
    X[0], W1[:, 0], dW1[:, 0] = 0.0, 1e12, 1e12 / X.shape[1]
    path = save(tmp_path / "case.npz", example, X=X, W1=W1, dW1=dW1, weight_decay=np.array(1.0))
    run = fastgc_command("check", path, "--method", "stacked")
    assert run.returncode == 3
    assert "cannot tell: " in one_line(run.stderr)
    assert run.stdout.startswith("cannot tell: ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_wrong(
    example: dict[str, Any], tmp_path: Path, value: float
) -> None:
    wrong = example["dW2"].copy()
    wrong[1, 4] = value
    run = fastgc_command("check", save(tmp_path / "case.npz", example, dW2=wrong), "--json")
    assert run.returncode == 1
    data = json.loads(run.stdout)
    assert data["tensors"]["W2"]["worst"]["name"] == "W2[1, 4]"
    assert data["tensors"]["W2"]["counts"]["nonfinite"] == 1


def test_options_of_the_network_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((3, 5)), np.array([0, 2, 1, 1, 0])
    parameters = {
        "W1": rng.standard_normal((4, 3)), "b1": np.zeros((4, 1)), "W2": rng.standard_normal((4, 4)),
        "b2": np.zeros((4, 1)), "W3": rng.standard_normal((3, 4)), "b3": np.zeros((3, 1)),
    }  # fmt: skip
    net = fastgc.Network(X, Y, activation=["tanh", "silu"], loss="softmax", weight_decay=0.5)
    gradients = fastgc.numerical_gradient(net, parameters)
    arrays = {
        "X": X,
        "Y": Y,
        **parameters,
        **{f"d{key}": value for key, value in gradients.items()},
    }
    options = {"activation": ["tanh", "silu"], "loss": "softmax", "weight_decay": 0.5}
    path = save(
        tmp_path / "case.npz", arrays, **options, dZ3=np.zeros((3, 5)), dA2=np.zeros((4, 5))
    )
    assert fastgc_command("check", path).returncode == 0
    assert (
        fastgc_command("check", save(path, arrays, **{**options, "weight_decay": 0.0})).returncode
        == 1
    )
    assert (
        fastgc_command("check", save(path, arrays, **{**options, "activation": "tanh"})).returncode
        == 1
    )


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"X": None}, "has no X"),
    ({"Y": None}, "has no Y"),
    ({"W1": None, "dW1": None}, "has no W1"),
    ({"b2": None}, 'no "b2"'),
    ({"dW2": None}, "no dW2"),
    ({"w4": np.ones(3)}, "the key w4"),
    ({"W5": np.ones((1, 1)), "dW5": np.ones((1, 1))}, 'the key "W5"'),
    ({"dW7": np.ones((1, 1))}, 'the key "dW7"'),
    (
        {"dW2": np.ones((5, 3))},
        'gradients["dW2"] … (5, 3) … parameters["W2"] … (3, 5) … Transpose',
    ),
    ({"W2": np.ones((5, 3))}, "W2 … (5, 3) … (n_2, 5)"),
    ({"X": np.ones((3, 4))}, "transpose X"),
    ({"Y": np.array([1, 2, 0])}, "Y … 2 … logistic … [0, 1]"),
    ({"X": np.full((4, 3), np.nan)}, "X[0, 0] is nan"),
    ({"Y": np.array([0.0, np.inf, 1.0])}, "Y[1] is inf"),
    ({"b3": np.array([[np.nan]])}, "b3[0, 0] is nan"),
    ({"X": np.empty((4, 0))}, "X … (4, 0)"),
    ({"dW1": np.empty((0, 4))}, "dW1 … (0, 4)"),
    ({"W3": np.array([["a", "b", "c"]])}, "W3 … <U1"),
    ({"db1": np.ones((5, 1), dtype=complex)}, "db1 … complex128"),
    (
        {"W1": np.array([[{}]], dtype=object)},
        "W1 in {path} … pickled",
    ),
    ({"activation": "elu"}, 'activation is "elu"'),
    ({"activation": 3}, "activation … int64 … ()"),
    ({"activation": [1.0, 2.0]}, "activation … float64"),
    ({"activation": ["relu"]}, "activation … 1 … 2"),
    ({"loss": "hinge"}, 'loss is "hinge"'),
    ({"loss": ["logistic", "softmax"]}, "loss … <U8 … (2,)"),
    ({"weight_decay": -1.0}, "weight_decay is -1.0"),
    ({"weight_decay": [1.0, 2.0]}, "weight_decay … (2,)"),
    ({"weight_decay": "much"}, "weight_decay … <U4"),
]


@pytest.mark.parametrize(
    ("changes", "message"), CHANGES, ids=[message[:40] for _, message in CHANGES]
)
def test_unusable_cases(
    example: dict[str, Any], tmp_path: Path, changes: Any, message: str
) -> None:
    path = save(tmp_path / "case.npz", example, **changes)
    run = fastgc_command("check", path)
    assert (run.returncode, run.stdout) == (2, "")
    assert says(one_line(run.stderr), message.format(path=path))


def _truncated(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def _damaged_member(whole: bytes) -> bytes:
    middle = whole.index(b"X.npy") + 200
    return (
        whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 40]) + whole[middle + 40 :]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"", "empty; `fastgc example"),
        (lambda whole: b"hello world", "not a npz file; `fastgc example"),
        (lambda whole: pickle.dumps({"X": 1}), "is not a npz file"),
        (_truncated, "is a damaged or truncated npz file"),
        (_damaged_member, "X in .* is damaged or truncated"),
        (lambda whole: b"PK\x03\x04" + b"\0" * 50, "is a damaged or truncated npz file"),
    ],
)  # fmt: skip
def test_unusable_files(
    example: dict[str, Any], tmp_path: Path, content: Any, message: str
) -> None:
    path = save(tmp_path / "case.npz", example)
    path.write_bytes(content(path.read_bytes()))
    run = fastgc_command("check", path)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.search(message, one_line(run.stderr))


def test_files_of_other_kinds(example: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", example["X"])
    run = fastgc_command("check", tmp_path / "one.npy")
    assert "npy" in one_line(run.stderr)
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("X", "not an array")
    run = fastgc_command("check", tmp_path / "text.npz")
    assert run.returncode == 2
    assert re.search("X in .* is not an array", one_line(run.stderr))
    for path, message in ((tmp_path / "none.npz", "No such file"), (tmp_path, "Is a directory")):
        run = fastgc_command("check", path)
        assert run.returncode == 2
        assert message in one_line(run.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "Missing argument"),
        (["chekc", "x.npz"], "No such command"),
        (["check", "x.npz", "--fast"], "No such option"),
        (
            ["check", "x.npz", "--epsilon", "small"],
            '--epsilon is "small"',
        ),
        (["check", "{case}", "--epsilon", "-1"], "epsilon is -1.0"),
        (["check", "{case}", "--tolerance", "nan"], "tolerance is nan"),
        (
            ["check", "{case}", "--method", "fast"],
            'method is "fast"',
        ),
    ],
)
def test_unusable_arguments(
    example: dict[str, Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = save(tmp_path / "case.npz", example)
    run = fastgc_command(*[argument.format(case=path) for argument in arguments])
    assert (run.returncode, run.stdout) == (2, "")
    assert message in one_line(run.stderr)


def test_version_and_help() -> None:
    assert fastgc_command("--version").stdout == f"fastgc {fastgc.__version__}\n"
    for arguments in ([], ["--help"], ["-h"]):
        run = fastgc_command(*arguments)
        assert run.returncode == 0
        assert "Examples:\n    fastgc demo" in run.stdout
    for command in ("check", "demo", "example"):
        run = fastgc_command(command, "--help")
        assert run.returncode == 0
        assert f"    fastgc {command}" in run.stdout
    assert (
        "Exit status: 0 right, 1 wrong, 2 unusable input, 3 cannot tell"
        in fastgc_command("check", "--help").stdout
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "arguments", ["check {case}", slow("check {case} --json"), slow("demo"), slow("--help")]
)
def test_a_full_disk_is_not_a_wrong_gradient(
    example: dict[str, Any], tmp_path: Path, arguments: str
) -> None:
    path = save(tmp_path / "case.npz", example)
    with Path("/dev/full").open("w") as full:
        run = process(*arguments.format(case=path).split(), stdout=full)
    assert run.returncode == 2
    assert one_line(run.stderr) == "fastgc: cannot write: No space left on device\n"


def test_files_through_a_pipe(example: dict[str, Any], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    content = save(tmp_path / "case.npz", example).read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    run = fastgc_command("check", pipe)
    writer.join()
    assert (run.returncode, run.stderr) == (0, "")


def test_a_stream_that_lacks_the_letters() -> None:
    run = process("check", "--help", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (run.returncode, run.stderr) == (0, "")


def test_plan() -> None:
    run = fastgc_command("plan", "--widths", "12,8,1", "--samples", "4")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("113 parameters; auto takes incremental. ")
    assert [line.split()[0] for line in lines[3:]] == [
        "loop",
        "stacked",
        "incremental",
        "node",
        "random",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--widths", "12", "--samples", "4"), 'widths is "12"'),
        (("--widths", "12,x", "--samples", "4"), 'widths is "12,x"'),
        (("--widths", "12,0,1", "--samples", "4"), 'widths is "12,0,1"'),
        (("--widths", "12,1", "--samples", "0"), "samples is 0"),
        (("--widths", "12,2,1", "--samples", "1", "--loss", "hinge"), 'loss is "hinge"'),
    ],
)
def test_plan_of_nothing(options: tuple[str, ...], message: str) -> None:
    run = fastgc_command("plan", *options)
    assert run.returncode == 2
    assert message in one_line(run.stderr)


def test_the_step_may_be_measured(tmp_path: Path) -> None:
    path = str(tmp_path / "case.npz")
    fastgc_command("example", path)
    run = fastgc_command("check", path, "--method", "loop", "--epsilon", "auto", "--json")
    assert run.returncode == 0
    assert json.loads(run.stdout)["epsilon"] != 1e-7


def test_parts_and_directions(tmp_path: Path) -> None:
    file = tmp_path / "case.npz"
    assert fastgc_command("example", str(file), "--faulty").returncode == 0
    run = fastgc_command("check", str(file), "--only", "W1", "--only", "b[23]", "--sample", "3")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("correct: 7 entries of W1, b2 and b3 ")
    run = fastgc_command(
        "check", str(file), "--method", "random", "--directions", "3", "--seed", "5", "--json"
    )
    assert run.returncode == 1
    report = fastgc.Report.from_dict(json.loads(run.stdout))
    assert [name for name, tensor in report.tensors.items() if not tensor.ok] == ["b1", "W2"]
    assert report.estimate is not None
    assert report.estimate.directions == 3
    run = fastgc_command("check", str(file), "--only", "V*")
    assert run.returncode == 2
    assert '"V*"' in run.stderr

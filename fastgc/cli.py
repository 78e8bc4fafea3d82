"""The command line: fastgc demo, check, plan and example."""

import contextlib
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import fastgc
from fastgc.methods.registry import METHODS, RANDOM
from fastgc.network.casefile import CaseError, load_case, save_case
from fastgc.network.layers import ACTIVATIONS, LOSSES
from fastgc.plan import drawn_network
from fastgc.report.text import headline, show

RIGHT, WRONG, UNUSABLE, CANNOT_TELL = range(4)
INTERRUPTED = 130
STATUS = {"correct": RIGHT, "wrong": WRONG, "unresolved": CANNOT_TELL}

app = typer.Typer(
    name="fastgc",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fastgc {fastgc.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Check gradients numerically: is a backward pass right, and if not, which parameter is wrong?

    \b
    Examples:
      fastgc demo                     the fraud-detection network and its planted bugs
      fastgc example case.npz         write a case to start from
      fastgc check case.npz           check it
      fastgc check case.npz --json    the same for a program
      fastgc plan --widths 784,512,256,1 --samples 32      what a check would cost
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def demo() -> None:
    """Find the planted bugs of the fraud-detection lab, then pass the mended version.

    \b
    Example:
      fastgc demo
    """
    from fastgc import lab

    X, Y, parameters = lab.gradient_check_n_test_case()
    _, cache = lab.forward_propagation_n(X, Y, parameters)
    faulty = lab.faulty_backward_propagation_n(X, Y, cache)
    mended = lab.backward_propagation_n(X, Y, cache)
    net = fastgc.Network(X, Y)
    ready = "stacked"  # the default would wait for its kernels, compiled at their first use
    print(
        "The fraud-detection network, LINEAR -> RELU -> LINEAR -> RELU -> LINEAR -> SIGMOID:\n"
        "widths 4-5-3-1, 47 parameters, 3 payments. Someone has written its backward pass.\n"
    )
    print("1. As it was handed in\n")
    show(fastgc.check(net, parameters, faulty, method=ready))
    print(
        "\nThe bugs: dW2 is twice what it should be, and db1 is summed with 4/m instead of 1/m.\n"
        "The report names both tensors and no other.\n"
    )
    print("2. Mended\n")
    show(fastgc.check(net, parameters, mended, method=ready))
    print(
        "\nWhat to do next:\n"
        "  fastgc example case.npz && fastgc check case.npz   a case in a file\n"
        "  fastgc.check(cost, parameters, gradients)          your own, from Python\n"
        "  from fastgc.lab import *                           the lab's helper modules"
    )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="X, Y, W1, b1, …, dW1, db1, …")],
    method: Annotated[str, typer.Option(help=f"auto, {', '.join(METHODS)}, {RANDOM}.")] = "auto",
    epsilon: Annotated[
        str | None,
        typer.Option(help="The step, a number or auto.  [default: the method's own]"),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="The relative error at which an entry still agrees.")
    ] = 2e-7,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A tensor to check, or a pattern as b*; may be given again.", metavar="NAME"
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="So many entries of each tensor, drawn at random.")
    ] = None,
    directions: Annotated[
        int | None,
        typer.Option(help="Random directions through each tensor, for --method random: 8, or so."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check the gradients saved in FILE.npz.

    It holds X, Y, W1, b1, … and dW1, db1, … as `np.savez` writes them; optional are activation,
    loss and weight_decay.

    \b
    Exit status: 0 right, 1 wrong, 2 unusable input, 3 cannot tell.

    \b
    Examples:
      fastgc check case.npz
      fastgc check case.npz --method loop --epsilon 1e-6
      fastgc check case.npz --method random --only "W*"
      fastgc check case.npz --json > report.json
    """
    try:
        step = _step(epsilon)
        case = load_case(file)
        report = fastgc.check(
            case.network,
            case.parameters,
            case.gradients,
            method=method,
            epsilon=step,
            tolerance=tolerance,
            only=only,
            sample=sample,
            directions=directions,
            seed=seed,
        )
    except (ValueError, TypeError) as error:
        raise _unusable(error) from error
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        show(report)
    if not report.ok:
        print(f"fastgc: {headline(report)}", file=sys.stderr)
    raise typer.Exit(STATUS[report.verdict])


@app.command()
def plan(
    widths: Annotated[str, typer.Option(help="n_0,n_1,…,n_L, as 784,512,256,1.")],
    samples: Annotated[int, typer.Option(help="The number of samples.")],
    activation: Annotated[str, typer.Option(help=f"One of {', '.join(ACTIVATIONS)}.")] = "relu",
    loss: Annotated[str, typer.Option(help=f"One of {', '.join(LOSSES)}.")] = "logistic",
) -> None:
    """Show what checking a network of these widths would cost with each method, on this machine.

    \b
    Example:
      fastgc plan --widths 784,512,256,1 --samples 32
    """
    try:
        net, parameters = drawn_network(widths, samples, activation, loss)
        forecast = fastgc.plan(net, parameters)
    except (ValueError, TypeError) as error:
        raise _unusable(error) from error
    print(forecast)


@app.command()
def example(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="The file to write.")],
    faulty: Annotated[bool, typer.Option("--faulty", help="With the lab's planted bugs.")] = False,
) -> None:
    """Write the fraud-detection case to FILE.npz, to start from.

    \b
    Examples:
      fastgc example case.npz
      fastgc example wrong.npz --faulty && fastgc check wrong.npz
    """
    from fastgc import lab

    X, Y, parameters = lab.gradient_check_n_test_case()
    _, cache = lab.forward_propagation_n(X, Y, parameters)
    backward = lab.faulty_backward_propagation_n if faulty else lab.backward_propagation_n
    gradients = {key: g for key, g in backward(X, Y, cache).items() if key[1:] in parameters}
    options = {"activation": "relu", "loss": "logistic", "weight_decay": 0.0}
    try:
        save_case(file, {"X": X, "Y": Y, **parameters, **gradients, **options})
    except CaseError as error:
        raise _unusable(error) from error
    print(
        f"Wrote {file}: X, Y, W1, b1, …, W3, b3 and their gradients dW1, db1, …, dW3, db3.\n"
        f"Check it with:          fastgc check {shlex.quote(str(file))}\n"
        "Save your own with:     np.savez(path, X=X, Y=Y, **parameters, dW1=dW1, db1=db1, …)"
    )


def main() -> None:
    """The program: one line on standard error for what cannot be done, and an exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks ε still gets the report
    try:
        status = app(prog_name="fastgc", standalone_mode=False)
        sys.stdout.flush()
    except OSError as error:  # a full disk, not a wrong gradient
        print(f"fastgc: cannot write: {error.strerror or error}", file=sys.stderr)
        status = UNUSABLE
        with contextlib.suppress(OSError):
            sys.stdout.close()
    except Exception as error:
        # a wrong option or argument; the class that typer raises has moved between its versions
        if not hasattr(error, "format_message"):
            raise
        print(f"fastgc: {_one_line(error.format_message())}", file=sys.stderr)
        status = UNUSABLE
    if status == INTERRUPTED:
        print("fastgc: interrupted", file=sys.stderr)
    sys.exit(status)


def _step(text: str | None) -> float | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'--epsilon is "{text}"; wanted a number such as 1e-7, or auto') from None


def _unusable(error: Exception) -> typer.Exit:
    print(f"fastgc: {_one_line(str(error))}", file=sys.stderr)
    return typer.Exit(UNUSABLE)


def _one_line(text: str) -> str:
    return " ".join(text.split())

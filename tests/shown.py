"""Documents with code: what it prints, and whether that is what they show; and messages."""

import re
import subprocess
import sys
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")
_END = "--- end of a block ---"
ROUNDING = 1e-6  # figures below this are rounding errors, and vary between machines


def naming(parts: str) -> str:
    """A pattern for messages that hold these, given with " … " between them, in this order."""
    return "(?s)" + ".*".join(map(re.escape, parts.split(" … ")))


def says(text: object, parts: str) -> bool:
    """Whether a text holds these, as `naming` takes them."""
    return re.search(naming(parts), str(text)) is not None


@dataclass(frozen=True)
class Block:
    """Code, and the lines of text that a document shows below it."""

    code: str
    shown: list[str]


def blocks(text: str) -> list[Block]:
    """The blocks of Python in Markdown, each with the text that follows it."""
    found = _BLOCK.findall(text)
    return [
        Block(code, following[1].splitlines() if following[0] == "text" else [])
        for (kind, code), following in zip(found, [*found[1:], ("", "")], strict=True)
        if kind == "python"
    ]


def printed(program: list[Block]) -> list[list[str]]:
    """What each block prints, run one after the other in a process of their own."""
    source = "\n".join(f"{block.code}\nprint({_END!r})" for block in program)
    run = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return [part.strip("\n").splitlines() for part in run.stdout.split(_END)[: len(program)]]


def require_same(program: list[Block]) -> None:
    """That each block prints what is shown below it."""
    for block, got in zip(program, printed(program), strict=True):
        require_alike(block.shown, got)


def require_alike(shown: list[str], got: list[str]) -> None:
    """That two texts are the `same` line by line."""
    assert len(shown) == len(got), f"shown are\n{shown}\nand printed\n{got}"
    for left, right in zip(shown, got, strict=True):
        assert same(left, right), f"shown is\n{left}\nand printed\n{right}"


def same(shown: str, got: str) -> bool:
    """Alike in words; in numbers to a thousandth, save for times and rounding errors."""
    if shown.endswith("correct") or "cannot tell" in shown:
        # which entry rounds worst depends on the processor
        return (shown.split()[0], shown.split()[-1]) == (got.split()[0], got.split()[-1])
    if _NUMBER.sub("#", _without_times(shown)) != _NUMBER.sub("#", _without_times(got)):
        return False
    if "evaluations in" in shown or "noise" in shown:
        return True
    numbers = zip(_numbers(_without_times(shown)), _numbers(_without_times(got)), strict=True)
    return all(_close(left, right) for left, right in numbers)


def _close(shown: str, got: str) -> bool:
    left, right = float(shown), float(got)
    if shown.isdigit() and got.isdigit():
        return left == right
    return max(abs(left), abs(right)) < ROUNDING or left == pytest.approx(right, rel=1e-3)


def lines_of_html(text: str) -> list[str]:
    """The words of a table and of what stands around it, a row a line."""
    text = re.sub(r"</(?:t[hd])>", "  ", re.sub(r"</(?:tr|p|li)>|<br>", "\n", text))
    return [line.strip() for line in unescape(re.sub(r"<[^>]*>", "", text)).splitlines() if line]


def _without_times(line: str) -> str:
    return re.sub(r"in [\d.]+ m?s", "in a while", line)


def _numbers(line: str) -> list[str]:
    return _NUMBER.findall(line)

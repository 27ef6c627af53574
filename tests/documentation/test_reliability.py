"""The page on reliability names tests that exist, and every guarantee and every fault of the matrix."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
FAULTS = 38
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| (F?\d+) \| (.+) \| (.*) \| (.+) \|$", re.MULTILINE)


def page() -> str:
    return (ROOT / "docs/internals/reliability.md").read_text("utf-8")


@cache
def functions(file: Path) -> frozenset[str]:
    """The tests of a file."""
    tree = ast.parse(file.read_text("utf-8")) if file.exists() else ast.Module()
    return frozenset(each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(page())

    assert [f"{file}::{name}" for file, name in named if name not in functions(TESTS / file)] == []
    assert page().count(".py::") == len(named), "a test is named in a way that is not looked at here"


def test_every_guarantee_and_every_fault_has_its_row() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    promised = readme.partition("## What it guarantees")[2].partition("## Performance")[0]
    guarantees = re.findall(r"^(\d+)\. ", promised, re.MULTILINE)
    faults = [f"F{number}" for number in range(1, FAULTS + 1)]

    assert [number for number, *_ in ROW.findall(page())] == [*guarantees, *faults]


def test_every_row_names_a_test_or_says_that_there_is_none() -> None:
    silent = [number for number, *cells in ROW.findall(page()) if not NAMED.search(" ".join(cells))]

    assert [number for number in silent if not re.search(rf"^\| {number} .*[Nn]ot covered", page(), re.MULTILINE)] == []

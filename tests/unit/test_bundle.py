"""Plugins inside a binary: what is written behind it, what comes out again, and what is refused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import ZipFile, ZipInfo

import pytest
from distributions import PYTHON_TAG, files_of, write_wheel

from workflow_engine.runtime.cli.bundle import make_bundle, running_binary
from workflow_engine.runtime.cli.bundled import FOLDER, bring_in_plugins
from workflow_engine.runtime.cli.errors import UsageError

CONTENT = b"\x7fELF and the rest of a binary"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    file = tmp_path / "workflow-engine"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a binary unpacks itself to. What comes on the path goes again."""
    folder = tmp_path / "contents"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    for name in ("bundled_a", "bundled_b"):
        sys.modules.pop(name, None)


def make_wheel(
    folder: Path,
    name: str,
    module: str,
    *,
    requires: Sequence[str] = (),
    version: str = "1.0",
    tag: str = PYTHON_TAG,
    plugins: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    files = files_of(name, {f"{module}.py": f"NAME = {name!r}\n"}, plugins, version, requires)
    return write_wheel(folder, name, files, version, tag)


def plugin(folder: Path, **options: Any) -> Path:
    return make_wheel(folder, "bundled-a", "bundled_a", **{"plugins": {"bundled-a": "bundled_a"}} | options)


def test_what_was_put_in_comes_out(binary: Path, contents: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    needed = make_wheel(tmp_path, "bundled-b", "bundled_b", version="2.1")
    bundle = make_bundle(binary, [plugin(tmp_path, requires=["bundled_b>=2"]), needed], made)
    assert list(map(str, bundle.wheels)) == ["bundled-a 1.0", "bundled-b 2.1"]
    assert made.read_bytes().startswith(CONTENT)
    assert made.stat().st_mode & 0o777 == 0o755
    assert binary.read_bytes() == CONTENT
    assert not list(tmp_path.glob(".made*"))

    bring_in_plugins(made, contents)
    assert sys.path[-1] == str(contents / FOLDER)
    assert [importlib.import_module(name).NAME for name in ("bundled_a", "bundled_b")] == ["bundled-a", "bundled-b"]
    [entry] = metadata.entry_points(group="workflow_engine", name="bundled-a")
    assert entry.dist is not None
    assert (entry.value, entry.dist.name, entry.dist.version) == ("bundled_a", "bundled-a", "1.0")


def test_a_process_that_is_started_by_the_binary_finds_them_unpacked(binary: Path, contents: Path) -> None:
    make_bundle(binary, [plugin(binary.parent)], binary.parent / "made")
    bring_in_plugins(binary.parent / "made", contents)
    binary.parent.joinpath("made").unlink()
    bring_in_plugins(binary.parent / "made", contents)
    assert sys.path[-2:] == [str(contents / FOLDER)] * 2


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_binary_without_plugins(binary: Path, contents: Path, size: int) -> None:
    binary.write_bytes(CONTENT * size)
    before = list(sys.path)
    bring_in_plugins(binary, contents)
    assert sys.path == before
    assert not list(contents.iterdir())


def test_files_are_where_an_installer_puts_them(binary: Path, contents: Path) -> None:
    wheel = plugin(binary.parent)
    with ZipFile(wheel, "a") as archive:
        archive.writestr("bundled_a-1.0.data/platlib/bundled_b.py", "NAME = 'b'\n")
        archive.writestr("bundled_a-1.0.data/scripts/tool", "#!python\n")
        program = ZipInfo("bundled_b_program")
        program.external_attr = 0o100755 << 16
        archive.writestr(program, "#!/bin/sh\n")
    make_bundle(binary, [wheel], binary.parent / "made")
    bring_in_plugins(binary.parent / "made", contents)
    assert importlib.import_module("bundled_b").NAME == "b"
    assert (contents / FOLDER / "bundled_b_program").stat().st_mode & 0o111
    assert not list(contents.rglob("tool"))


def test_what_every_binary_has_is_left_out(binary: Path) -> None:
    wheels = [plugin(binary.parent, requires=["pluggy>=1"]), make_wheel(binary.parent, "pluggy", "pluggy")]
    bundle = make_bundle(binary, wheels, binary.parent / "made")
    assert list(map(str, bundle.wheels)) == ["bundled-a 1.0"]
    assert list(map(str, bundle.left_out)) == ["pluggy 1.0"]


def no_wheel(folder: Path) -> list[Path]:
    return [folder / "plugin.zip"]


def absent(folder: Path) -> list[Path]:
    return [folder / "a-1.0-py3-none-any.whl"]


def broken(folder: Path) -> list[Path]:
    wheel = plugin(folder)
    wheel.write_bytes(wheel.read_bytes()[:-30])
    return [wheel]


def without_metadata(folder: Path) -> list[Path]:
    wheel = folder / "a-1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("a.py", "")
    return [wheel]


@pytest.mark.parametrize(
    ("wheels", "message"),
    [
        (no_wheel, "plugin.zip: is not the name of a wheel"),
        (absent, "cannot be read: No such file"),
        (broken, "cannot be read: File is not a zip file"),
        (without_metadata, "it has no metadata"),
        (lambda folder: [plugin(folder, tag="cp27-cp27m-win32")], "pip download --python-version 3."),
        (lambda folder: [plugin(folder, requires=["bundled-b>2"])], "needs bundled-b>2, which is not in this binary"),
        (lambda folder: [plugin(folder, requires=["pluggy<1"])], "needs pluggy<1, and there is 1."),
        (lambda folder: [plugin(folder), plugin(folder, version="2")], "bundled-a 1.0 is given as well"),
        (
            lambda folder: [plugin(folder), make_wheel(folder, "bundled-b", "bundled_a")],
            "has a file bundled_a.py, as bundled-a 1.0 does",
        ),
        (lambda folder: [plugin(folder, plugins={})], "none of the wheels is a plugin"),
        (lambda folder: [plugin(folder, requires=["x; extra == 'y'", "z; python_version < '3'"])], None),
    ],
)
def test_what_cannot_be_put_in(binary: Path, wheels: Callable[[Path], list[Path]], message: str | None) -> None:
    made = binary.parent / "made"
    if message is None:
        make_bundle(binary, wheels(binary.parent), made)
        return
    with pytest.raises(UsageError) as refused:
        make_bundle(binary, wheels(binary.parent), made)
    told = [str(refused.value), *(f"{problem.path}: {problem.message}" for problem in refused.value.problems)]
    assert message in "\n".join(told)
    assert not made.exists()


def test_a_binary_with_plugins_takes_no_more(binary: Path) -> None:
    made = binary.parent / "made"
    make_bundle(binary, [plugin(binary.parent)], made)
    with pytest.raises(UsageError, match="has plugins inside already"):
        make_bundle(made, [plugin(binary.parent)], binary.parent / "again")


def test_a_binary_that_cannot_be_written(binary: Path) -> None:
    with pytest.raises(UsageError, match="absent/made cannot be written: No such file or directory"):
        make_bundle(binary, [plugin(binary.parent)], binary.parent / "absent" / "made")


def test_the_binary_that_runs(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="a command of the binary"):
        running_binary()
    monkeypatch.setattr(sys, "executable", str(binary))
    monkeypatch.setattr(sys, "_MEIPASS", str(binary.parent / "_internal"), raising=False)
    with pytest.raises(UsageError, match="pip install --target"):
        running_binary()
    monkeypatch.setattr(sys, "_MEIPASS", "/tmp/_MEI1", raising=False)
    assert running_binary() == binary

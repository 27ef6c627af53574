"""What setup.cfg says is what the tree holds, and what the wheel holds is both.

The folders are mapped to subpackages by hand, so a forgotten line works in an editable install and is
missing from the wheel. Building the wheel needs the package index, and fails without it.
"""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SHIPPED = {"tests", "benchmarks", "examples"}
COPIED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def configuration(root: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((root / "setup.cfg").read_text(encoding="utf-8"))
    return parser


def values(text: str) -> list[str]:
    """The entries of a setup.cfg list, one to a line or separated by commas."""
    return [entry.strip() for line in text.splitlines() for entry in line.split(",") if entry.strip()]


def mapping(root: Path) -> dict[str, Path]:
    """Import package to folder, as `package_dir` says."""
    lines = values(configuration(root)["options"]["package_dir"])
    return {name.strip(): root / folder.strip() for name, _, folder in (line.partition("=") for line in lines)}


def files(folder: Path) -> list[Path]:
    """The files of a folder that a checkout has."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def packages_on_disk(root: Path) -> list[str]:
    """The import packages of the mapped folders: one for each folder that holds `__init__.py`."""
    return [
        ".".join([name, *init.parent.relative_to(folder).parts])
        for name, folder in mapping(root).items()
        for init in folder.rglob("__init__.py")
    ]


def package_faults(root: Path) -> list[str]:
    """Where `packages` and `package_dir` differ from the folders that hold Python files."""
    declared = values(configuration(root)["options"]["packages"])
    found = packages_on_disk(root)
    mapped = {folder.name for folder in mapping(root).values()}
    folders = {init.parent.name for init in root.glob("*/__init__.py")} - NOT_SHIPPED
    bare = {p.parent for folder in mapped for p in files(root / folder) if p.suffix == ".py"}
    return [
        *(f"{name}: declared twice" for name in {n for n in declared if declared.count(n) > 1}),
        *(f"{name}: not in packages" for name in sorted({*found} - {*declared})),
        *(f"{name}: declared, not on disk" for name in sorted({*declared} - {*found})),
        *(f"{name}: not in package_dir" for name in sorted(folders - mapped)),
        *(f"{p.relative_to(root)}: no __init__.py" for p in sorted(bare) if not (p / "__init__.py").exists()),
    ]


def folder_of(folders: dict[str, Path], package: str) -> Path:
    """The folder of an import package, which may lie below a mapped one."""
    name = package
    while name and name not in folders:
        name = name.rpartition(".")[0]
    return folders[name].joinpath(*package.removeprefix(name).strip(".").split("."))


def unshipped_data(root: Path) -> list[str]:
    """The data files that no pattern of `package_data` matches."""
    folders = mapping(root)
    matched = {
        file
        for package, patterns in configuration(root)["options.package_data"].items()
        for pattern in values(patterns)
        for file in folder_of(folders, package).glob(pattern)
    }
    data = {p for folder in folders.values() for p in files(folder) if p.suffix != ".py"}
    return sorted(p.relative_to(root).as_posix() for p in data - matched)


def expected_in_wheel(root: Path) -> set[str]:
    """Every file of the mapped folders, under the name that it has once installed."""
    return {
        "/".join([*name.split("."), *file.relative_to(folder).parts])
        for name, folder in mapping(root).items()
        for file in files(folder)
    }


def wheel_faults(root: Path, names: set[str]) -> list[str]:
    """How the contents of a wheel differ from the tree."""
    contents = {name for name in names if ".dist-info/" not in name}
    expected = expected_in_wheel(root)
    return [
        *(f"{name}: missing from the wheel" for name in sorted(expected - contents)),
        *(f"{name}: only in the wheel" for name in sorted(contents - expected)),
    ]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, so that no build output lies in it and nobody changes it meanwhile."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in sorted({init.parent for init in ROOT.glob("*/__init__.py")} | {ROOT / "tests"}):
        shutil.copytree(folder, copy / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in COPIED:
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the wheel that a user would build."""
    target = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-input",
        "--wheel-dir",
        str(target),
        str(tree),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return {*archive.namelist()}


def test_packages_are_the_folders_on_disk() -> None:
    assert package_faults(ROOT) == []


def test_every_data_file_is_shipped() -> None:
    assert unshipped_data(ROOT) == []


def test_the_wheel_holds_the_tree_and_nothing_else(tree: Path, wheel: set[str]) -> None:
    assert wheel_faults(tree, wheel) == []
    assert {"workflow_engine/py.typed", "workflow_engine/__init__.py"} <= wheel
    assert [name for name in wheel if name.endswith(".sql")]


# --- the checks themselves, on samples --------------------------------------------------------------

SETUP = """
[options]
package_dir =
    flow = package
    flow.runtime = runtime
packages =
    flow
    flow.runtime
    flow.runtime.core

[options.package_data]
flow = py.typed
flow.runtime.core = **/*.sql
"""
SOUND = (
    "package/__init__.py",
    "package/py.typed",
    "runtime/__init__.py",
    "runtime/core/__init__.py",
    "runtime/core/deep/er/a.sql",
)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A small tree without fault."""
    (tmp_path / "setup.cfg").write_text(SETUP, encoding="utf-8")
    for name in SOUND:
        add(tmp_path, name)
    return tmp_path


def add(root: Path, name: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_a_sound_sample_has_no_fault(sample: Path) -> None:
    add(sample, "runtime/__pycache__/a.pyc")
    add(sample, "tests/__init__.py")
    assert package_faults(sample) == []
    assert unshipped_data(sample) == []
    assert wheel_faults(sample, expected_in_wheel(sample) | {"flow-1.dist-info/METADATA"}) == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("runtime/store/__init__.py", "flow.runtime.store: not in packages"),
        ("config/__init__.py", "config: not in package_dir"),
        ("runtime/core/deep/a.py", "runtime/core/deep: no __init__.py"),
    ],
)
def test_a_forgotten_package_is_found(sample: Path, name: str, fault: str) -> None:
    add(sample, name)
    assert package_faults(sample) == [fault]


def test_a_package_that_is_gone_is_found(sample: Path) -> None:
    (sample / "runtime/core/__init__.py").unlink()
    assert package_faults(sample) == ["flow.runtime.core: declared, not on disk"]


@pytest.mark.parametrize("name", ["package/a.toml", "runtime/a.sql", "runtime/core/deep/a.lua"])
def test_an_unmatched_data_file_is_found(sample: Path, name: str) -> None:
    add(sample, name)
    assert unshipped_data(sample) == [name]


@pytest.mark.parametrize("name", ["flow/py.typed", "flow/runtime/core/__init__.py", "flow/runtime/core/deep/er/a.sql"])
def test_a_file_missing_from_the_wheel_is_found(sample: Path, name: str) -> None:
    assert wheel_faults(sample, expected_in_wheel(sample) - {name}) == [f"{name}: missing from the wheel"]


@pytest.mark.parametrize("name", ["tests/test_a.py", "flow/gone.py"])
def test_a_stray_file_in_the_wheel_is_found(sample: Path, name: str) -> None:
    assert wheel_faults(sample, expected_in_wheel(sample) | {name}) == [f"{name}: only in the wheel"]

"""Makes a binary with plugins inside, from the binary that runs and from wheels."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from ...plugins import ENTRY_POINT_GROUP
from ..core.problem import Problem
from .bundled import COMMENT, has_plugins
from .errors import UsageError


class Wheel(NamedTuple):
    """A wheel that can be used here."""

    file: Path
    name: NormalizedName
    version: Version
    requirements: Sequence[Requirement]
    is_plugin: bool

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Bundle(NamedTuple):
    """What is in a binary that was made, and what was given but is in every binary."""

    wheels: Sequence[Wheel]
    left_out: Sequence[Wheel]


def running_binary() -> Path:
    """The file that this process was started from. Raises `UsageError` where Python, or a folder, is its home."""
    contents = getattr(sys, "_MEIPASS", None)
    binary = Path(sys.executable)
    if contents is None or Path(contents).parent == binary.parent:
        raise UsageError(
            "bundle is a command of the binary that is one file. With Python, or in the folder, install the plugins: "
            "pip install --target DIR, and PLUGINS_DIR"
        )
    return binary


def make_bundle(binary: Path, files: Iterable[Path], output: Path) -> Bundle:
    """Write `binary`, with the wheels `files` in it, to `output`, which may exist. Raises `UsageError`.

    What the wheels need must be among them or in the binary. `binary` must be of the Python that runs this.
    """
    if has_plugins(binary):
        raise UsageError(f"{binary} has plugins inside already: use the binary that it was made from")
    wheels, problems = _read_all(files)
    present = _present()
    included = [wheel for wheel in wheels.values() if wheel.name not in present]
    left_out = [wheel for wheel in wheels.values() if wheel.name in present]
    versions = {**present, **{wheel.name: wheel.version for wheel in included}}
    problems += [problem for wheel in included for problem in _missing(wheel, versions)]
    problems += _twice(included)
    if problems:
        raise UsageError("no binary is made", problems)
    if not any(wheel.is_plugin for wheel in included):
        raise UsageError(
            f"none of the wheels is a plugin: none has an entry point of the group {ENTRY_POINT_GROUP}, "
            "or this binary has them all"
        )
    _write(binary, included, output)
    return Bundle(included, left_out)


def _read_all(files: Iterable[Path]) -> tuple[dict[NormalizedName, Wheel], list[Problem]]:
    wheels: dict[NormalizedName, Wheel] = {}
    problems = []
    tags = frozenset(sys_tags())
    for file in files:
        try:
            wheel = _read(file, tags)
        except UsageError as error:
            problems.append(Problem(str(file), str(error)))
            continue
        if wheel.name in wheels:
            problems.append(Problem(str(file), f"{wheels[wheel.name]} is given as well: give one of them"))
        wheels[wheel.name] = wheel
    return wheels, problems


def _read(file: Path, tags: frozenset[Tag]) -> Wheel:
    try:
        name, version, _, made_for = parse_wheel_filename(file.name)
    except InvalidWheelFilename:
        raise UsageError("is not the name of a wheel: NAME-VERSION-PYTHON-ABI-PLATFORM.whl") from None
    if not tags & made_for:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise UsageError(
            f"was made for another Python or another system; this binary has Python {python}: get it with "
            f"`pip download --python-version {python} --only-binary :all:` on such a system"
        )
    try:
        with ZipFile(file) as archive:
            folders = {entry.split("/")[0] for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")}
            if len(folders) != 1:
                raise UsageError("is no wheel: it has no metadata")
            found = metadata.PathDistribution(ZipPath(archive, f"{folders.pop()}/"))
            requirements = [Requirement(line) for line in found.requires or ()]
            is_plugin = any(entry.group == ENTRY_POINT_GROUP for entry in found.entry_points)
    except (OSError, BadZipFile, ValueError) as error:
        raise UsageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return Wheel(file, name, version, requirements, is_plugin)


def _present() -> Mapping[NormalizedName, Version]:
    """What every binary has."""
    return {canonicalize_name(each.name): Version(each.version) for each in metadata.distributions()}


def _missing(wheel: Wheel, versions: Mapping[NormalizedName, Version]) -> Iterator[Problem]:
    for requirement in wheel.requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = versions.get(canonicalize_name(requirement.name))
        needs = f"needs {requirement.name}{requirement.specifier}"
        if version is None:
            yield Problem(str(wheel.file), f"{needs}, which is not in this binary: give its wheel as well")
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Problem(str(wheel.file), f"{needs}, and there is {version}: take another version of one of them")


def _twice(wheels: Iterable[Wheel]) -> Iterator[Problem]:
    owners: dict[str, Wheel] = {}
    for wheel in wheels:
        with ZipFile(wheel.file) as archive:
            for _, place in _installed(archive):
                owner = owners.setdefault(place, wheel)
                if owner is not wheel:
                    yield Problem(str(wheel.file), f"has a file {place}, as {owner} does: they cannot be used together")


def _installed(archive: ZipFile) -> Iterator[tuple[ZipInfo, str]]:
    """The files that an installer would make importable, and where. Programs and headers are none of them."""
    for entry in archive.infolist():
        first, *rest = PurePosixPath(entry.filename).parts
        if entry.is_dir():
            continue
        if not first.endswith(".data"):
            yield entry, entry.filename
        elif rest[:1] in (["purelib"], ["platlib"]):
            yield entry, "/".join(rest[1:])


def _write(binary: Path, wheels: Iterable[Wheel], output: Path) -> None:
    """Whole or not at all: in a file beside it, which then takes its place."""
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        shutil.copyfile(binary, unfinished)
        with ZipFile(unfinished, "a", ZIP_DEFLATED) as bundle:
            bundle.comment = COMMENT
            for wheel in wheels:
                with ZipFile(wheel.file) as archive:
                    for entry, place in _installed(archive):
                        copied = ZipInfo(place, entry.date_time)
                        copied.external_attr = entry.external_attr
                        bundle.writestr(copied, archive.read(entry), ZIP_DEFLATED)
        unfinished.chmod(0o755)
        unfinished.replace(output)
    except (OSError, BadZipFile) as error:
        raise UsageError(f"{output} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        unfinished.unlink(missing_ok=True)

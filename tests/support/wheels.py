"""Wheels made by hand: a zip archive of modules and of metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

PURE = "py3-none-any"


def make_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    *,
    requires: Sequence[str] = (),
    entry_points: Mapping[str, str] | None = None,
    version: str = "1.0",
    tag: str = PURE,
) -> Path:
    """A wheel of `files`, by their places; `entry_points` are plugins of the engine, by their names."""
    information = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    contents = {
        **files,
        f"{information}/METADATA": "\n".join([*metadata, ""]),
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if entry_points:
        lines = [f"{key} = {value}" for key, value in entry_points.items()]
        contents[f"{information}/entry_points.txt"] = "\n".join(["[workflow_engine]", *lines, ""])
    contents[f"{information}/RECORD"] = "".join(f"{place},,\n" for place in contents)
    wheel = folder / f"{information.removesuffix('.dist-info')}-{tag}.whl"
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for place, text in contents.items():
            archive.writestr(place, text)
    return wheel

"""Distributions of plugins: as `pip install` leaves them in a folder, and as wheels for pip itself."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow_engine.plugins import ENTRY_POINT_GROUP

PYTHON_TAG = "py3-none-any"


def files_of(
    distribution: str,
    files: Mapping[str, str | bytes],
    entry_points: Mapping[str, str],
    version: str = "1.0",
    requires: Sequence[str] = (),
) -> dict[str, bytes]:
    """What is in such a distribution, by path: `files`, and what says which plugins it has, and what it needs."""
    folder = f"{distribution.replace('-', '_')}-{version}.dist-info"
    lines = [f"{name} = {target}" for name, target in entry_points.items()]
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    texts: dict[str, str | bytes] = {
        **files,
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}",
        f"{folder}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {PYTHON_TAG}\n",
        f"{folder}/entry_points.txt": "\n".join([f"[{ENTRY_POINT_GROUP}]", *lines, ""]),
    }
    return {path: text.encode() if isinstance(text, str) else text for path, text in texts.items()}


def install_into(folder: Path, files: Mapping[str, bytes]) -> None:
    """As `pip install --target` would."""
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def write_wheel(
    folder: Path, distribution: str, files: Mapping[str, bytes], version: str = "1.0", tag: str = PYTHON_TAG
) -> Path:
    """A wheel that pip takes; `tag` is of its name only."""
    name = f"{distribution.replace('-', '_')}-{version}"
    record = f"{name}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    wheel = folder / f"{name}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, record: "\n".join([*lines, f"{record},,", ""]).encode()}.items():
            archive.writestr(path, content)
    return wheel


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

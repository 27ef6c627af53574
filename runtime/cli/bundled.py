"""Plugins inside a binary: a zip archive behind its end, of what `pip install --target` would have made a folder of.

The archive's comment says what it is. Light: a binary looks for it at every start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

COMMENT = b"plugins of workflow-engine"
FOLDER = "bundled-plugins"


def has_plugins(binary: Path) -> bool:
    """Whether there are plugins inside."""
    with binary.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(COMMENT)))
        return file.read() == COMMENT


def bring_in_plugins(binary: Path, contents: Path) -> None:
    """Make what `binary` has inside importable, last on the path; `contents` is the folder that it unpacked itself to.

    A process that this one starts finds them there. Does nothing without plugins.
    """
    folder = contents / FOLDER
    if not folder.is_dir():
        if not has_plugins(binary):
            return
        _unpack(binary, folder)
    sys.path.append(str(folder))


def _unpack(archive: Path, folder: Path) -> None:
    from zipfile import ZipFile

    with ZipFile(archive) as opened:
        for entry in opened.infolist():
            file = Path(opened.extract(entry, folder))
            if entry.external_attr >> 16 & 0o111 and not entry.is_dir():
                file.chmod(0o755)

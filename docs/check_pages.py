"""`python docs/check_pages.py FOLDER`: built pages ask nothing of other servers, and have their promised anchors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reference_pages.errors import entries

# What a browser fetches by itself. Links that a reader may follow are something else.
_FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*["'][^>]*>""")
_STYLE_FETCHED = re.compile(r"""(?:url\(|@import\s+)["']?(?:https?:)?//[^)"']*""")


def faults(folder: Path) -> list[str]:
    """What is wrong with the pages, a line each."""
    pages = sorted(folder.rglob("*.html"))
    found = [f"{page}: {match}" for page in pages for match in _FETCHED.findall(page.read_text("utf-8"))]
    for style in sorted(folder.rglob("*.css")):
        found += [f"{style}: {match}" for match in _STYLE_FETCHED.findall(style.read_text("utf-8"))]
    problems = (folder / "reference" / "problems.html").read_text("utf-8")
    found += [f"no anchor for {entry.code}" for entry in entries() if f'id="problem-{entry.code}"' not in problems]
    return found if pages else [f"{folder}: no pages"]


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.exit(1 if lines else 0)

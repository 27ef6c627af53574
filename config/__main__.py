"""`python -m workflow_engine.config [FILE]`: print the settings' tables, or renew them in a Markdown file."""

from __future__ import annotations

import sys
from pathlib import Path

from .tables import markdown_tables, rewrite

if __name__ == "__main__":
    if len(sys.argv) > 1:
        rewrite(Path(sys.argv[1]))
    else:
        sys.stdout.write(markdown_tables() + "\n")

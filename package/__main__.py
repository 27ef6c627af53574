"""`python -m workflow_engine` and the command `workflow-engine`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from workflow_engine.runtime.cli.main import main as run_command_line

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()

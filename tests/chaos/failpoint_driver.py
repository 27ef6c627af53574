"""A small workload in a process of its own, to be killed at any failpoint: `failpoint_driver.py DATABASE JOURNAL`.

Acknowledged submits and triggers go to the journal, one line each. Ends when everything has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from workflow_engine.config import load_settings
from workflow_engine.runtime.process import Runtime, running

DIAMOND = {
    "name": "diamond",
    "dag": {
        "nodes": [
            {"id": "a", "handler": "pause"},
            {
                "id": "b",
                "handler": "pause",
                "dependencies": ["a"],
                "config": {"failures": 1},
                "retry_config": {"initial_delay": 0.001},
            },
            {"id": "c", "handler": "pause", "dependencies": ["a"]},
            {"id": "d", "handler": "pause", "dependencies": ["b", "c"]},
        ]
    },
}


async def main(database: Path, journal: Path) -> None:
    """Submit, trigger, cancel; wait for the ends."""
    settings = load_settings({"sqlite_path": database})
    async with running(lambda: Runtime(settings)) as runtime:
        engine = runtime.engine
        with journal.open("a", buffering=1) as acknowledged:
            executions = []
            for number in range(2):
                execution_id = (await engine.submit(DIAMOND)).execution_id
                acknowledged.write(f"submitted {execution_id}\n")
                await engine.trigger(execution_id, {"number": number})
                acknowledged.write(f"triggered {execution_id}\n")
                executions.append(execution_id)
            cancelled = (await engine.submit(DIAMOND)).execution_id
            acknowledged.write(f"submitted {cancelled}\n")
            await engine.trigger(cancelled)
            acknowledged.write(f"triggered {cancelled}\n")
            await asyncio.gather(engine.cancel(cancelled), return_exceptions=True)
        for execution_id in [*executions, cancelled]:
            await engine.results(execution_id, 60)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
    sys.stdout.write(f"done {os.getpid()}\n")

"""A small workload in a process of its own, to be killed at any failpoint: `failpoint_driver.py JOURNAL`.

The environment says on which backend. Acknowledged submits and triggers go to the journal, one line each. Ends when
everything that is stored has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from workflow_engine.config import load_settings
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.ports import ExecutionFilter, Store
from workflow_engine.runtime.process import Runtime, running

LOOK_SECONDS = 0.02
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


async def main(journal: Path) -> None:
    """Submit, trigger, cancel; wait for the ends."""
    async with running(lambda: Runtime(load_settings({}))) as runtime:
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
        await until_nothing_runs(runtime.store)


async def until_nothing_runs(store: Store) -> None:
    """Wait for the end of what others have left, too."""
    running = ExecutionFilter(states=frozenset({WorkflowState.RUNNING}))
    while await store.list_executions(running, None, 1):
        await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
    sys.stdout.write(f"done {os.getpid()}\n")

"""The simulated users: what they ask for, at whichever replica, and what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from simulator.process import ConnectionLost, Process
from simulator.workload import draw_definition
from simulator.world import EPOCH_MILLISECONDS, World
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from workflow_engine.runtime.errors import BackendError, EngineError, ExecutionConflict, IdempotencyConflict
from workflow_engine.runtime.ports import IdempotencyClaim

USERS = 4


class Journal:
    """What the replicas acknowledged to their users, kept outside of them."""

    def __init__(self) -> None:
        self.submitted: set[str] = set()
        self.triggered: set[str] = set()
        self.cancelled: set[str] = set()
        self.discarded: set[str] = set()
        self.reported: dict[str, WorkflowState] = {}
        self.inputs: dict[str, bytes] = {}
        self.keys: dict[str, set[str]] = {}
        """By idempotency key: the executions that were answered."""
        self.requeued: dict[str, set[str]] = {}
        """By dead letter: the executions that were answered."""


class User:
    """Goes from one request to the next; what fails is shrugged at, or asked for again under its key."""

    def __init__(self, world: World, processes: Sequence[Process], journal: Journal, number: int) -> None:
        self._world = world
        self._processes = processes
        self._journal = journal
        self._number = number
        self._random = Random(f"{world.seed}/user/{number}")

    async def run(self) -> None:
        random = self._random
        for round_number in range(random.randrange(2, 6)):
            document = draw_definition(
                random,
                f"user-{self._number}-{round_number % 3}",
                crashing=self._world.with_crashes,
                limited=self._world.topology == "limits",
            )
            try:
                if random.random() < 0.25:
                    await self._start_under_a_key(document, f"key-{self._number}-{round_number}")
                else:
                    await self._use(document)
            except ExecutionConflict:
                self._world.happened["request_conflicted"] += 1
            except (ConnectionLost, EngineError):
                self._world.happened["request_failed"] += 1
            await asyncio.sleep(random.random() * 10)

    def _anyone(self) -> Process:
        return self._random.choice(self._processes)

    async def _use(self, document: dict[str, Any]) -> None:
        random, journal = self._random, self._journal
        process = self._anyone()
        execution_id = (await process.call(lambda engine: engine.submit(document))).execution_id
        journal.submitted.add(execution_id)
        if random.random() < 0.05:
            return
        if random.random() < 0.1:
            await self._trigger_twice_at_once(execution_id)
            return
        started = await process.call(lambda engine: engine.trigger(execution_id, {"n": 1}))
        journal.triggered.add(started)
        if random.random() < 0.2:
            await self._cancel(execution_id)
        if random.random() < 0.5:
            await self._wait(started)
        if random.random() < 0.2:
            journal.triggered.add(await self._anyone().call(lambda engine: engine.trigger(execution_id)))

    async def _cancel(self, execution_id: str) -> None:
        """While it begins, runs or ends; sometimes twice, at two replicas."""
        random = self._random
        await asyncio.sleep(random.choice([0.0, 0.05, 1.0]) * random.random() * 5)
        times = 2 if random.random() < 0.3 else 1
        answers = await asyncio.gather(
            *(self._anyone().call(lambda engine: engine.cancel(execution_id)) for _ in range(times)),
            return_exceptions=True,
        )
        if any(isinstance(answer, WorkflowState) for answer in answers):
            self._journal.cancelled.add(execution_id)
        for answer in answers:
            if isinstance(answer, ExecutionConflict):
                self._world.happened["request_conflicted"] += 1

    async def _wait(self, execution_id: str) -> None:
        """For its end, at any replica; a failed one is dealt with as a dead letter."""
        seconds = self._random.random() * 30
        results = await self._anyone().call(lambda engine: engine.results(execution_id, seconds))
        if results.state not in TERMINAL_WORKFLOW_STATES:
            return
        self._journal.reported[execution_id] = results.state
        if results.state is WorkflowState.FAILED and self._random.random() < 0.7:
            await self._deal_with(execution_id)

    async def _deal_with(self, letter: str) -> None:
        """Requeue or discard a dead letter; sometimes two people do so at once, at two replicas."""
        random = self._random
        asked = []
        for _ in range(2 if random.random() < 0.5 else 1):
            if random.random() < 0.6:
                asked.append(self._anyone().call(lambda engine: engine.dead_letters.requeue(letter)))
            else:
                asked.append(self._anyone().call(lambda engine: engine.dead_letters.discard(letter)))
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, str):
                self._journal.requeued.setdefault(letter, set()).add(answer)
                self._journal.triggered.add(answer)
                self._world.happened["requeued"] += 1
            elif answer is None:
                self._journal.discarded.add(letter)
                self._world.happened["discarded"] += 1
            elif isinstance(answer, ExecutionConflict):
                self._world.happened["dead_letter_race_lost"] += 1

    async def _start_under_a_key(self, document: dict[str, Any], key: str) -> None:
        """Asked again after every lost or refused answer, and sometimes after a good one: it happens once."""
        random = self._random
        answered = self._journal.keys.setdefault(key, set())
        for _ in range(8):
            times = 2 if random.random() < 0.3 else 1
            claim = IdempotencyClaim(key, "start", EPOCH_MILLISECONDS)
            answers = await asyncio.gather(
                *(self._start(self._anyone(), document, claim) for _ in range(times)), return_exceptions=True
            )
            started = [answer for answer in answers if isinstance(answer, str)]
            answered.update(started)
            self._journal.triggered.update(started)
            if not started:
                self._world.happened["request_repeated"] += 1
                await asyncio.sleep(random.random() * 5)
                continue
            if random.random() < 0.3:
                await self._abuse(document, key)
            if random.random() < 0.5:
                return

    async def _start(self, process: Process, document: dict[str, Any], claim: IdempotencyClaim) -> str:
        defined, _ = await process.call(lambda engine: engine.define(document))
        started = await process.call(
            lambda engine: engine.start(defined.name, {"key": claim.key}, version=defined.version, claim=claim)
        )
        return started.execution_id

    async def _abuse(self, document: dict[str, Any], key: str) -> None:
        """Another request under a key that is taken."""
        try:
            await self._start(self._anyone(), document, IdempotencyClaim(key, "another", EPOCH_MILLISECONDS))
        except IdempotencyConflict:
            return
        except (ConnectionLost, BackendError, EngineError):
            return
        self._world.violated(f"I3 another request was taken under {key}")

    async def _trigger_twice_at_once(self, execution_id: str) -> None:
        """Of two triggers at the same time one wins, and its inputs are the ones that count."""
        answers = await asyncio.gather(
            *(self._trigger(self._anyone(), execution_id, number) for number in (1, 2)), return_exceptions=True
        )
        won = [number for number, answer in enumerate(answers, 1) if answer == execution_id]
        self._journal.triggered.update(answer for answer in answers if isinstance(answer, str))
        self._world.happened["trigger_race"] += 1
        if len(won) > 1:
            self._world.violated(f"I3 both of two triggers started {execution_id}")
        elif won:
            self._journal.inputs[execution_id] = b'{"n":%d}' % won[0]

    @staticmethod
    async def _trigger(process: Process, execution_id: str, number: int) -> str:
        return await process.call(lambda engine: engine.trigger(execution_id, {"n": number}))

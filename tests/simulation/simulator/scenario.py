"""One seed from beginning to end: users, processes that crash and come back, a quiet end, an audit.

Topologies: `embedded` is one process; `postgres` three that share partitions by leases; `distributed` some that also
talk, with roles drawn from the seed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar

from simulator.broker import Server, SimulatedBroker
from simulator.disk import Disk, SimulatedStore, audit
from simulator.loop import HOST, Deadlock
from simulator.transport import SimulatedTransport
from simulator.workload import draw_definition, run_isolated, simulated_handler
from simulator.world import EPOCH_MILLISECONDS, FaultRates, SimulatedClock, World, describe
from workflow_engine.config import load_settings
from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from workflow_engine.runtime.engine import Engine
from workflow_engine.runtime.errors import BackendError, EngineError, ExecutionConflict
from workflow_engine.runtime.parts import node_defaults
from workflow_engine.runtime.ports import IdempotencyClaim
from workflow_engine.runtime.process import Runtime

Result = TypeVar("Result")

FAULTY_SECONDS = 60.0
RECOVERY_SECONDS = 600.0
USERS = 4
PARTITIONS = 4
SETTINGS = {"worker_graceful_shutdown_timeout": 2.0}
DISTRIBUTED = {"backend": "distributed", "worker_heartbeat_interval": 1.0, "worker_heartbeat_timeout": 3.0}
FLEETS = (
    ["all", "all", "all"],
    ["api,orchestrator", "api,orchestrator", "worker", "worker"],
    ["all", "api", "orchestrator", "worker"],
    ["api,orchestrator", "worker"],
)
# Shorter than in production, so that owners change often within the faulty time.
SHARED = {
    "backend": "postgres",
    "partitions": PARTITIONS,
    "orchestrator_stale_result_timeout": 6.0,
    "orchestrator_stale_claim_interval": 3.0,
}


class ConnectionLost(Exception):
    """The process died before it answered."""


class Process:
    """A process that runs the engine, dies, and is started again."""

    def __init__(self, world: World, disk: Disk, server: Server, name: str, roles: str) -> None:
        self._world = world
        self._disk = disk
        self._server = server
        self._name = name
        self.roles = roles
        self._incarnation = 0
        self._calls: dict[asyncio.Future[Any], None] = {}
        self._starting = False
        self._died: asyncio.Future[None] = world.loop.create_future()
        self.runtime: Runtime | None = None

    @property
    def host(self) -> tuple[str, int]:
        """The incarnation that runs now."""
        return (self._name, self._incarnation)

    async def start(self) -> None:
        """Start a new incarnation; when its start fails because of a fault, the next one is tried."""
        self._starting = True
        while True:
            self._incarnation += 1
            try:
                runtime = await self._done_by(self.host, self._start(self._incarnation))
            except BackendError:
                runtime = None
                self._world.loop.kill(self.host)
            if runtime is not None:
                self.runtime = runtime
                self._starting = False
                return
            await asyncio.sleep(1)

    async def _done_by(self, host: tuple[str, int], work: Coroutine[Any, Any, Result]) -> Result | None:
        """What a host comes to; None when it dies before."""
        task = self._world.loop.create_task_of(host, work)
        self._died = self._world.loop.create_future()
        await asyncio.wait([task, self._died], return_when=asyncio.FIRST_COMPLETED)
        return None if self._died.done() else task.result()

    async def _start(self, incarnation: int) -> Runtime:
        world = self._world
        distributed = world.topology == "distributed"
        values: dict[str, Any] = SETTINGS | (SHARED if world.topology != "embedded" else {})
        settings = load_settings(values | (DISTRIBUTED if distributed else {}) | {"runtime_roles": self.roles})
        catalogue = Catalogue([simulated_handler(world, self._disk)])
        runtime = Runtime(
            settings,
            store=SimulatedStore(world, self._disk),
            transport=SimulatedTransport(world),
            broker=SimulatedBroker(world, self._server) if distributed else None,
            clock=SimulatedClock(world, f"{self._name}-{incarnation}"),
            catalogue=catalogue,
            run_isolated=partial(run_isolated, world, lambda: catalogue),
        )
        await runtime.start()
        return runtime

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, and later SIGCONT."""
        host = self.host
        self._world.note(f"pause {host} for {seconds:.2f} s")
        self._world.loop.pause(host)
        await asyncio.sleep(seconds)
        self._world.loop.resume(host)
        self._world.note(f"resume {host}")

    def kill(self) -> None:
        """kill -9."""
        self._world.note(f"kill {self.host}")
        self._world.loop.kill(self.host)
        if self.runtime is not None and self.runtime.agent_faults and not self._world.rates.broker_stumbles:
            self._world.violated(f"an agent of {self.host} failed in a way that nobody can explain")
        self.runtime = None
        if not self._died.done():
            self._died.set_result(None)
        for call in self._calls:
            if not call.done():
                call.set_exception(ConnectionLost())
        self._calls.clear()

    def crash(self) -> None:
        """A handler has taken the process along; whoever looks after it starts it again."""
        self.kill()
        self._world.loop.create_task_of(("supervisor", 0), self._start_again())

    async def _start_again(self) -> None:
        await asyncio.sleep(self._world.faults.random() * 4)
        if self.runtime is None and not self._starting:
            await self.start()

    async def stop(self) -> None:
        """SIGTERM, and what the process makes of it."""
        runtime, self.runtime = self.runtime, None
        assert runtime is not None
        await self._done_by(self.host, runtime.stop())
        self.kill()

    async def call(self, request: Coroutine[Any, Any, Result]) -> Result:
        """A request that the process serves; `ConnectionLost` when it dies before it has answered."""
        answer: asyncio.Future[Result] = self._world.loop.create_future()
        self._calls[answer] = None
        self._world.loop.create_task_of(self.host, self._serve(request, answer))
        try:
            return await answer
        finally:
            self._calls.pop(answer, None)

    @staticmethod
    async def _serve(request: Coroutine[Any, Any, Result], answer: asyncio.Future[Result]) -> None:
        try:
            result = await request
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(result)

    @property
    def owner_failed(self) -> bool:
        """Whether the owner has ended although nobody asked it to."""
        return self.runtime is not None and not self.runtime.is_healthy()


class Journal:
    """What the process acknowledged to its users, kept outside of it."""

    def __init__(self) -> None:
        self.submitted: set[str] = set()
        self.triggered: set[str] = set()
        self.cancelled: set[str] = set()
        self.reported: dict[str, WorkflowState] = {}
        self.inputs: dict[str, bytes] = {}
        self.keys: dict[str, set[str]] = {}
        """By idempotency key: the executions that were answered."""


async def _user(world: World, processes: Sequence[Process], journal: Journal, number: int) -> None:
    random = world.workload
    for round_number in range(random.randrange(2, 6)):
        document = draw_definition(random, f"user-{number}-{round_number % 3}", crashing=world.with_crashes)
        process = random.choice(processes)
        try:
            if random.random() < 0.25:
                await _start_under_a_key(world, process, journal, document, f"key-{number}-{round_number}")
            else:
                await _use(world, process, journal, document)
        except ExecutionConflict:
            world.happened["request_conflicted"] += 1
        except (ConnectionLost, EngineError):
            # Refused, or the process is down: a user shrugs and goes on.
            world.happened["request_failed"] += 1
        await asyncio.sleep(random.random() * 10)


async def _use(world: World, process: Process, journal: Journal, document: dict[str, Any]) -> None:
    random = world.workload
    execution_id = (await process.call(_engine(process).submit(document))).execution_id
    journal.submitted.add(execution_id)
    if random.random() < 0.05:
        return
    if random.random() < 0.1:
        await _trigger_twice_at_once(world, process, journal, execution_id)
        return
    started = await process.call(_engine(process).trigger(execution_id, {"n": 1}))
    journal.triggered.add(started)
    if random.random() < 0.15:
        await asyncio.sleep(random.random() * 5)
        await process.call(_engine(process).cancel(execution_id))
        journal.cancelled.add(execution_id)
    if random.random() < 0.5:
        results = await process.call(_engine(process).results(started, random.random() * 30))
        if results.state in TERMINAL_WORKFLOW_STATES:
            journal.reported[started] = results.state
    if random.random() < 0.2:
        journal.triggered.add(await process.call(_engine(process).trigger(execution_id)))


async def _start_under_a_key(
    world: World, process: Process, journal: Journal, document: dict[str, Any], key: str
) -> None:
    """Asked again after every lost or refused answer, and sometimes after a good one: it happens once."""
    random = world.workload
    claim = IdempotencyClaim(key, "start", EPOCH_MILLISECONDS)
    answered = journal.keys.setdefault(key, set())
    for _ in range(8):
        try:
            defined, _ = await process.call(_engine(process).define(document))
            started = await process.call(
                _engine(process).start(defined.name, {"key": key}, version=defined.version, claim=claim)
            )
        except (ConnectionLost, BackendError):
            world.happened["request_repeated"] += 1
            await asyncio.sleep(random.random() * 5)
            continue
        answered.add(started.execution_id)
        journal.triggered.add(started.execution_id)
        if random.random() < 0.5:
            return


async def _trigger_twice_at_once(world: World, process: Process, journal: Journal, execution_id: str) -> None:
    """Of two triggers at the same time one wins, and its inputs are the ones that count."""
    answers = await asyncio.gather(
        *(process.call(_engine(process).trigger(execution_id, {"n": number})) for number in (1, 2)),
        return_exceptions=True,
    )
    won = [number for number, answer in enumerate(answers, 1) if answer == execution_id]
    journal.triggered.update(answer for answer in answers if isinstance(answer, str))
    world.happened["trigger_race"] += 1
    if len(won) > 1:
        world.violated(f"both of two triggers started {execution_id}")
    elif won:
        journal.inputs[execution_id] = b'{"n":%d}' % won[0]


def _engine(process: Process) -> Engine:
    if process.runtime is None:
        raise ConnectionLost
    return process.runtime.engine


async def _chaos(world: World, process: Process) -> None:
    """Kill, restart and pause the process as drawn, until the quiet end."""
    while world.loop.time() < FAULTY_SECONDS:
        await asyncio.sleep(world.faults.random() * 8)
        if process.owner_failed:
            world.violated("the owner ended by itself")
            process.kill()
        elif process.runtime is None:
            continue  # a handler has taken it along, and it is on its way back
        elif world.strikes("crash"):
            process.kill()
        elif world.strikes("graceful_restart"):
            await process.stop()
        elif world.strikes("pause"):
            await process.pause(world.faults.choice([0.5, 1.5, 5.0]) * 6 * world.faults.random())
            continue
        else:
            continue
        await asyncio.sleep(world.faults.random() * 4)
        if process.runtime is None:
            await process.start()


async def _join(world: World, process: Process) -> None:
    """Replicas come one after another, in the middle of the others' work: partitions change hands."""
    await asyncio.sleep(world.workload.random() * 20)
    await process.start()


def _fleet(world: World) -> Sequence[str]:
    if world.topology == "distributed":
        return Random(f"{world.seed}/fleet").choice(FLEETS)
    return ["all"] if world.topology == "embedded" else ["all"] * 3


async def _run(world: World, disk: Disk) -> Journal:
    server = Server(world)
    processes = [Process(world, disk, server, f"engine-{number}", roles) for number, roles in enumerate(_fleet(world))]
    by_host = {process.host[0]: process for process in processes}
    world.kill_host = lambda host: by_host[host[0]].crash() if by_host[host[0]].host == host else None
    apis = [process for process in processes if process.roles == "all" or "api" in process.roles]
    journal = Journal()
    first, *others = processes
    await first.start()
    late = [world.loop.create_task(_join(world, process)) for process in others]
    users = [world.loop.create_task(_user(world, apis, journal, number)) for number in range(USERS)]
    await asyncio.gather(*late)
    if world.topology == "distributed":
        late.append(world.loop.create_task(server.misbehave()))
    await asyncio.gather(*(_chaos(world, process) for process in processes))
    await asyncio.gather(*users)
    world.quiet = True
    world.note("quiet")
    deadline = world.loop.time() + RECOVERY_SECONDS
    while world.loop.time() < deadline and not _all_ended(disk, journal):
        await asyncio.sleep(1)
    for process in processes:
        if process.owner_failed:
            world.violated("the owner ended by itself")
        process.kill()
    return journal


def _all_ended(disk: Disk, journal: Journal) -> bool:
    wanted = journal.triggered | journal.cancelled
    if not all(command.consumed for command in disk.commands.values()):
        return False
    return all(
        record.state in TERMINAL_WORKFLOW_STATES
        for record in disk.executions.values()
        if record.execution_id in wanted or record.state is WorkflowState.RUNNING
    )


def run_seed(
    seed: int, *, topology: str = "embedded", with_faults: bool = True, with_crashes: bool | None = None
) -> World:
    """Run one world; its violations say what did not hold. `with_crashes`: by handlers, as the faults unless said."""
    crashing = with_faults if with_crashes is None else with_crashes
    world = World(seed, topology=topology, with_faults=with_faults, with_crashes=crashing)
    disk = Disk(world, PARTITIONS if topology != "embedded" else 1)
    HOST.set(("users", 0))
    try:
        journal = world.loop.run_until_complete(_run(world, disk), deadline=5_000.0)
        _judge(world, disk, journal)
    except Deadlock as deadlock:
        world.violated(f"deadlock: {deadlock}")
    finally:
        world.loop.bury()
    for error in world.loop.errors:
        world.violated(f"unhandled: {error.get('message')} {error.get('exception')!r}")
    return world


def _judge_keys(world: World, disk: Disk, journal: Journal) -> None:
    """I3: one execution and one answer under an idempotency key."""
    for key, answered in journal.keys.items():
        input_text = json.dumps({"key": key}, separators=(",", ":")).encode()
        there = [each for each, record in disk.executions.items() if record.input_text == input_text]
        if len(there) > 1 or len(answered) > 1:
            world.violated(f"I3 {key} started {there}, answered {sorted(answered)}")
        world.happened["key_answered"] += len(answered)


def _judge_crashes(world: World, disk: Disk) -> None:
    """I17: an attempt that kills its process is found out, and ends its execution."""
    alone = world.rates == FaultRates()
    for (execution_id, node_id, attempt), count in world.crashes.items():
        if count > (2 if alone else 4):
            world.violated(f"I17 {node_id}#{attempt} of {execution_id} has killed {count} processes")
        world.happened["poisoned"] += disk.executions[execution_id].state is WorkflowState.FAILED


def _judge(world: World, disk: Disk, journal: Journal) -> None:
    _judge_crashes(world, disk)
    for execution_id in journal.submitted | journal.triggered:
        if execution_id not in disk.executions:
            world.violated(f"I2 {execution_id} was acknowledged and is not there")
    for record in disk.executions.values():
        acknowledged = record.execution_id in journal.triggered | journal.cancelled
        if record.state is WorkflowState.RUNNING or (acknowledged and record.state is WorkflowState.PENDING):
            world.violated(f"I1 {record.execution_id} is {record.state} long after the last fault")
    for execution_id, state in journal.reported.items():
        if disk.executions[execution_id].state is not state:
            world.violated(f"I14 {execution_id} was reported {state} and is {disk.executions[execution_id].state}")
    for execution_id, input_text in journal.inputs.items():
        if disk.executions[execution_id].input_text != input_text:
            world.violated(f"{execution_id} has the inputs of a trigger that lost")
    _judge_keys(world, disk, journal)
    for command in disk.commands.values():
        if not command.consumed:
            world.violated(f"I19 the cancel {command.command_id} was never consumed")
    world.happened["execution"] += len(disk.executions)
    for record in disk.executions.values():
        world.happened[f"execution_{record.state}"] += 1
    defaults = node_defaults(load_settings())
    graphs = {
        definition_id: compile_graph(decode(definition.body), defaults)
        for definition_id, definition in disk.definitions.items()
    }
    audit(world, disk, graphs)


__all__ = ["describe", "run_seed"]

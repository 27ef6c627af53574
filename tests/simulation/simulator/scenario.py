"""One seed from beginning to end: users, processes that crash and come back, a quiet end, an audit.

Topologies: `embedded` is one process; `postgres` three that share partitions by leases; `replicas` three that also
talk, each with all roles; `roles` some with roles of their own; `limits` is as `replicas`, and half of the nodes are of
a handler that may run and begin only so often on all of them. One in eight worlds of several processes runs with
the default settings, the others with shorter times.

What must hold, by the numbers that violations begin with:

| number | invariant | checked |
| --- | --- | --- |
| I1 | what was acknowledged ends in a terminal state when the faults stop; nothing is set aside | at the end |
| I2 | nothing that was acknowledged is lost | at the end |
| I3 | one execution and one answer under an idempotency key; of two who trigger or requeue one wins | at the end |
| I5 | one outcome for each attempt; whatever is written can be stored | at every write |
| I6 | attempts are numbered without gaps, and each follows one that has failed | at every start, audit |
| I7 | a handler starts only if all it depends on is committed | at every start, audit |
| I8 | nothing starts twice in a process, or after its outcome was committed | at every start |
| I10 | what others hand out and has no permission is not started: as I8 and I19 | at every start |
| I13 | sequence numbers are dense; an execution's row is the fold of its rows | at every write, audit |
| I14 | a terminal state is final, and is what users were told | at every write, at the end |
| I15 | a retry does not start before it is due | at every start |
| I16 | all of it with wall clocks that differ and jump | in the worlds that have these faults |
| I17 | an attempt that kills its processes is found out | at the end |
| I19 | nothing starts after a cancel was taken in; every command is consumed | at every start, at the end |
| I20 | no more of a handler with limits runs or begins than it declares, where nothing goes wrong | at every start |
| I21 | a partition has one owner that may start something | at every start |
| I22 | recovery needs nobody in particular: processes come back under new names | in every world |
| I25 | no part of a process ends or fails without a fault that explains it | at the end of every process |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from random import Random

from simulator.broker import Server
from simulator.disk import Disk
from simulator.loop import HOST, Deadlock
from simulator.probes import watched
from simulator.process import Process, disconnect, settings_of, torment
from simulator.users import USERS, Journal, User
from simulator.workload import simulated_handlers
from simulator.world import World, describe
from workflow_engine.config import Settings
from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.runtime.core.audit import judge, judge_claim, judge_place, judge_resolution, judge_retry
from workflow_engine.runtime.core.graph import Graph, compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.shares import partition_of
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from workflow_engine.runtime.parts import node_defaults
from workflow_engine.runtime.ports import Resolution

TOPOLOGIES = ("embedded", "postgres", "replicas", "roles", "limits")
FAULTY_SECONDS = 60.0
LONGEST_OVERTIME_SECONDS = 240.0
RECOVERY_SECONDS = 600.0
BY_DEFAULT_EVERY = 8
EMBEDDED_LEASE_SECONDS = 6.0
SPLIT_ROLES = (
    ["api,orchestrator", "api,orchestrator", "worker", "worker"],
    ["all", "api", "orchestrator", "worker"],
    ["api,orchestrator", "worker"],
)


async def _join(world: World, process: Process) -> None:
    """Replicas come one after another, in the middle of the others' work: partitions change hands."""
    await asyncio.sleep(world.workload.random() * 20)
    await process.start()


def _settings(world: World) -> Sequence[Settings]:
    """One for each process."""
    if world.topology == "embedded":
        roles = ["all"]
    elif world.topology == "roles":
        roles = Random(f"{world.seed}/roles").choice(SPLIT_ROLES)
    else:
        roles = ["all"] * 3
    by_default = world.seed % BY_DEFAULT_EVERY == 0
    return [settings_of(world.topology, each, by_default=by_default) for each in roles]


async def _run(world: World, disk: Disk, all_settings: Sequence[Settings]) -> Journal:
    distributed = all_settings[0].backend == "distributed"
    lease_seconds = EMBEDDED_LEASE_SECONDS
    if world.topology != "embedded":
        lease_seconds = all_settings[0].orchestrator_stale_result_timeout
    server = Server(world)
    catalogue = Catalogue(simulated_handlers(world, disk, lease_seconds / 3 if distributed else 0.0))
    processes = [
        Process(world, (disk, server), f"engine-{number}", settings, catalogue)
        for number, settings in enumerate(all_settings)
    ]
    by_name = {process.host[0]: process for process in processes}
    world.kill_host = lambda host: by_name[host[0]].crash() if by_name[host[0]].host == host else None
    world.who_may_start = lambda execution_id: [
        process.host[0] for process in processes if process.may_start(partition_of(execution_id, disk.partitions))
    ]
    journal = Journal()
    faulty_until = max(FAULTY_SECONDS, 4 * lease_seconds)
    # Whatever has not come about by then, such as the first start: faults end.
    world.loop.call_at(faulty_until + LONGEST_OVERTIME_SECONDS, world.calm_down)
    first, *others = processes
    await first.start()
    late = [world.loop.create_task(_join(world, process)) for process in others]
    apis = [process for process in processes if process.is_api]
    users = [
        world.loop.create_task(User(world, apis, journal, number).run())
        for number in range(USERS)
        if f"user-{number}" not in world.without
    ]
    await asyncio.gather(*late)
    faults = [disk.misbehave(), *(disconnect(world, each.to_store, "store", lease_seconds) for each in processes)]
    if distributed:
        faults += [
            server.misbehave(),
            *(disconnect(world, each.to_broker, "broker", lease_seconds) for each in processes),
        ]
    servers = [world.loop.create_task(fault) for fault in faults] if world.rates else []
    if not world.rates:
        for fault in faults:
            fault.close()
    await asyncio.gather(*(torment(world, process, lease_seconds, faulty_until) for process in processes))
    await asyncio.gather(*users)
    world.calm_down()
    await asyncio.gather(*servers)
    deadline = world.loop.time() + RECOVERY_SECONDS
    while world.loop.time() < deadline and not _all_ended(disk, journal):
        await asyncio.sleep(1)
    for process in processes:
        if process.owner_failed:
            world.violated("I25 the owner ended by itself")
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
    seed: int,
    *,
    topology: str = "embedded",
    with_faults: bool = True,
    with_crashes: bool | None = None,
    without: Collection[str] = (),
) -> World:
    """Run one world; its violations say what did not hold.

    `with_crashes`: by handlers, as the faults unless said. `without`: faults, users or the poison to leave out.
    """
    crashing = with_faults if with_crashes is None else with_crashes
    world = World(seed, topology=topology, with_faults=with_faults, with_crashes=crashing, without=without)
    settings = _settings(world)
    disk = Disk(world, settings[0].partitions if topology != "embedded" else 1)
    before = HOST.set(("users", 0))
    try:
        with watched(world):
            journal = world.loop.run_until_complete(_run(world, disk, settings), deadline=5_000.0)
        _judge(world, disk, journal, settings[0])
    except Deadlock as deadlock:
        world.violated(f"I1 deadlock: {deadlock}")
    finally:
        errors = list(world.loop.errors)
        world.loop.bury()
        HOST.reset(before)
    for error in errors:
        world.violated(f"I25 unhandled: {error.get('message')} {error.get('exception')!r}")
    return world


def _judge(world: World, disk: Disk, journal: Journal, settings: Settings) -> None:
    _judge_crashes(world, disk)
    _judge_acknowledged(world, disk, journal)
    _judge_keys(world, disk, journal)
    _judge_dead_letters(world, disk, journal)
    for command in disk.commands.values():
        if not command.consumed:
            world.violated(f"I19 the cancel {command.command_id} was never consumed")
    world.happened["execution"] += len(disk.executions)
    for record in disk.executions.values():
        world.happened[f"execution_{record.state}"] += 1
    defaults = node_defaults(settings)
    graphs = {
        definition_id: compile_graph(decode(definition.body), defaults)
        for definition_id, definition in disk.definitions.items()
    }
    _audit(world, disk, graphs)


def _judge_acknowledged(world: World, disk: Disk, journal: Journal) -> None:
    """I1, I2 and I14: what users were told is so, and stays so."""
    for execution_id in sorted(journal.submitted | journal.triggered):
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
            world.violated(f"I3 {execution_id} has the inputs of a trigger that lost")


def _judge_keys(world: World, disk: Disk, journal: Journal) -> None:
    """I3: one execution and one answer under an idempotency key."""
    for key, answered in journal.keys.items():
        input_text = json.dumps({"key": key}, separators=(",", ":")).encode()
        there = [
            each
            for each, record in disk.executions.items()
            if record.input_text == input_text and record.retry_of is None
        ]
        if len(there) > 1 or len(answered) > 1:
            world.violated(f"I3 {key} started {there}, answered {sorted(answered)}")
        world.happened["key_answered"] += len(answered)


def _judge_dead_letters(world: World, disk: Disk, journal: Journal) -> None:
    """I3 and I14: a dead letter is carried on once or given up, and stays what it was."""
    for letter, started in disk.requeued.items():
        if len(started) > 1:
            world.violated(f"I3 the dead letter {letter} was requeued as {started}")
    for letter, answered in journal.requeued.items():
        if answered - set(disk.requeued.get(letter, [])) or disk.executions[letter].state is not WorkflowState.FAILED:
            world.violated(f"I2 the dead letter {letter} was requeued as {sorted(answered)}, by what users were told")
    for letter in journal.discarded:
        if disk.executions[letter].resolution is not Resolution.DISCARDED:
            world.violated(f"I2 the dead letter {letter} was discarded and is {disk.executions[letter].resolution}")


def _judge_crashes(world: World, disk: Disk) -> None:
    """I17: an attempt that kills its process is found out, and ends its execution."""
    alone = not world.rates
    for (execution_id, node_id, attempt), count in world.crashes.items():
        if count > (2 if alone else 4):
            world.violated(f"I17 {node_id}#{attempt} of {execution_id} has killed {count} processes")
        world.happened["poisoned"] += disk.executions[execution_id].state is WorkflowState.FAILED


def _audit(world: World, disk: Disk, graphs: Mapping[str, Graph]) -> None:
    """Judge everything that is stored, as `workflow-engine audit` does."""
    clocks_agree = not {"clock_skewed", "clock_stepped"} & world.rates.keys()
    retries = {record.retry_of: each for each, record in disk.executions.items() if record.retry_of is not None}
    for record in disk.executions.values():
        history = disk.loaded(record.execution_id)
        found = judge(history, graphs[record.definition_id], clocks_agree=clocks_agree)
        found += judge_place(record, disk.partitions)
        found += judge_resolution(record, retries.get(record.execution_id), is_kept=True)
        if record.retry_of is not None:
            found += judge_retry(history, disk.loaded(record.retry_of), is_kept=True)
        for finding in found:
            world.violated(str(finding))
    for claim, execution_id, definition_id in disk.claims.values():
        record_of = disk.executions.get(execution_id)
        for finding in judge_claim(claim.key, execution_id, definition_id, record_of, is_kept=True):
            world.violated(str(finding))


__all__ = ["TOPOLOGIES", "describe", "run_seed"]

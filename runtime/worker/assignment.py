"""What goes between the engine and a process that runs single attempts: assignments there, frames back.

First it is told how it is SET UP, and says that it is READY. Then an ASSIGNMENT is answered with PROGRESS, now and
then, and with OUTPUT or ERROR, and with READY if another one may follow.

What goes there is pickled: it holds what JSON cannot (settings, parsed templates), and it comes from the
engine itself. What comes back has been in a handler's reach, so it is bytes and JSON, and of a limited size.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..core.limits import MAX_ATTEMPT_INPUT_BYTES
from ..core.machine import Execution
from ..core.queue import Delivery

HEADER = struct.Struct(">cII")
"""Of a frame: its kind, the length of its body in bytes, and the body's CRC-32."""

SET_UP, ASSIGNMENT, PROGRESS, OUTPUT, ERROR, READY = b"S", b"A", b"P", b"O", b"E", b"R"
MAX_ERROR_BYTES = 64 * 1024
"""Of the JSON of an `AttemptError`: its texts are cut when it is made."""
MAX_PROGRESS_BYTES = 1024
"""Of its JSON; its text was cut."""

LAST_WORDS_SECONDS = 0.5
"""How long a process that has nothing more to say may take to end by itself."""
CLOSE_SECONDS = 5.0
"""How long handlers that are classes may take to close, all together."""


class ChildSettings(NamedTuple):
    """What the engine's settings say that such a process has to know."""

    plugin_settings: Mapping[str, object]
    allow_private_addresses: bool
    log_level: str
    log_format: str


class SetUp(NamedTuple):
    """What such a process is for, for all its life.

    `is_for_suspects`: nothing that an attempt has left behind may be there when the next one begins. If not, what has
    been opened stays open. `memory_bytes`: how much it may take; None: as much as there is.
    """

    import_path: Sequence[str]
    settings: ChildSettings
    is_for_suspects: bool
    memory_bytes: int | None
    max_output_bytes: int


class Assignment(NamedTuple):
    """One attempt, with everything that is needed to run it.

    `delivery` holds a part of its execution: the node, and those whose output it may read. `unread` are the
    sizes in bytes, by node index, of outputs that are left out because nobody may read that much.
    """

    delivery: Delivery
    unread: Mapping[int, int]


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """A message as it goes over the wire."""
    return HEADER.pack(kind, len(body), zlib.crc32(body)) + body


def leave_seconds(set_up: SetUp) -> float:
    """How long such a process may take to end by itself."""
    return LAST_WORDS_SECONDS if set_up.is_for_suspects else CLOSE_SECONDS


def write_set_up(set_up: SetUp) -> bytes:
    """The frame that says what a process is for."""
    return frame(SET_UP, pickle.dumps(set_up))


def read_set_up(body: bytes) -> SetUp:
    """The same as it was given."""
    set_up: SetUp = pickle.loads(body)
    return set_up


def write_assignment(delivery: Delivery) -> bytes:
    """The frame that assigns an attempt."""
    return frame(ASSIGNMENT, pickle.dumps(Assignment(*_part_for(delivery))))


def read_assignment(body: bytes) -> Delivery:
    """The attempt that is assigned, its outputs in place."""
    assignment: Assignment = pickle.loads(body)
    for index, size_bytes in assignment.unread.items():
        # An output is measured before it is read, and this one will be found too large.
        assignment.delivery.execution.outputs[index] = bytes(size_bytes)
    return assignment.delivery


def _part_for(delivery: Delivery) -> tuple[Delivery, Mapping[int, int]]:
    """The delivery with a part of its execution, and the sizes of the outputs that are left out."""
    execution, node, attempt = delivery
    graph = execution.graph
    needed = graph.dependencies[node]
    referred = dict.fromkeys(
        graph.index_of[reference.root]
        for _, reference in graph.configs[node].references
        if reference.root in graph.index_of
    )
    chosen = [*referred, *(index for index in needed if index not in referred), node]
    place = {index: number for number, index in enumerate(chosen)}
    size = len(chosen)
    part = replace(
        graph,
        node_ids=tuple(graph.node_ids[index] for index in chosen),
        index_of={graph.node_ids[index]: number for index, number in place.items()},
        handlers=(graph.handlers[node],) * size,
        configs=(graph.configs[node],) * size,
        dependencies=((),) * (size - 1) + (tuple(place[index] for index in needed),),
        dependents=((),) * size,
        roots=(),
        exits=(),
        retry_policies=(graph.retry_policies[node],) * size,
        timeouts_seconds=(graph.timeouts_seconds[node],) * size,
        input_schema=None,
        below_input_node=frozenset({place[node]} if graph.descends_from_input_node(node) else ()),
    )
    partial = Execution(execution.execution_id, part, execution.input_text)
    left_out = _left_out(execution.outputs, list(referred), needed)
    unread = {}
    for index in chosen[:-1]:
        output = execution.outputs[index]
        if output is not None and index in left_out:
            unread[place[index]] = len(output)
        else:
            partial.outputs[place[index]] = output
    return Delivery(partial, place[node], attempt), unread


def _left_out(outputs: Sequence[bytes | None], referred: Sequence[int], needed: Sequence[int]) -> set[int]:
    """The outputs that cannot be read, since all that is read before or with them is too much.

    Templates read one after another, each output once; of those before, only that of a node called `input` may
    have been spared, since its name can also mean the parameters. Dependencies are read all at once or not at all.
    """
    left_out = set()
    total_bytes = 0
    for index in referred:
        if total_bytes > 2 * MAX_ATTEMPT_INPUT_BYTES:
            left_out.add(index)
        total_bytes += len(outputs[index] or b"")
    if sum(len(outputs[index] or b"") for index in needed) > MAX_ATTEMPT_INPUT_BYTES:
        left_out.update(index for index in needed if index not in referred)
    return left_out

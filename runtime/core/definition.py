"""The workflow definition as users write it, and every rule it must keep.

`WorkflowDefinition` is the shape (what the API documents is this very model); `validate_definition`
adds what a shape cannot say: ids, edges, cycles, handlers, templates. It reports all problems at
once, with their paths, in time proportional to nodes plus edges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import limits
from .function import FUNCTION_PREFIX
from .input_schema import check_input_schema
from .output_schema import Missing, find_missing
from .problem import Problem, did_you_mean, join_path, show
from .shape import describe_errors
from .template import INPUT_ROOT, OUTPUT_FIELD, CompiledConfig, Reference, compile_config, contains_template

NODE_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
NO_NUL = r"^[^\x00]*$"
"""A text that every store can hold: PostgreSQL takes no NUL."""

ConfigCheck = Callable[[Mapping[str, Any]], Sequence[tuple[tuple[str | int, ...], str]]]
"""Checks a handler's configuration: pairs of (keys and indexes down to the fault, message)."""

_Seconds = Annotated[float, Field(ge=0, le=limits.MAX_DELAY_SECONDS, allow_inf_nan=False)]


class RetryConfig(BaseModel):
    """How failed attempts are retried. What is left out comes from the level above."""

    model_config = ConfigDict(extra="forbid", strict=True)

    max_retries: Annotated[int, Field(ge=0, le=limits.MAX_RETRIES)] | None = Field(
        default=None, description="attempts after the first one"
    )
    initial_delay: _Seconds | None = Field(default=None, description="seconds before the first retry")
    max_delay: _Seconds | None = Field(default=None, description="longest delay, in seconds")
    exponential_base: Annotated[float, Field(ge=1, le=limits.MAX_EXPONENTIAL_BASE, allow_inf_nan=False)] | None = Field(
        default=None, description="factor from one delay to the next"
    )
    jitter: bool | None = Field(default=None, description="draw each delay between zero and the backoff")


class NodeDefinition(BaseModel):
    """One step of a workflow."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(pattern=f"^{NODE_ID.pattern}$", description="unique in the workflow")
    handler: str = Field(min_length=1, max_length=128, description="the node type that runs it")
    dependencies: list[str] = Field(default_factory=list, description="ids of the nodes it waits for")
    config: dict[str, Any] = Field(default_factory=dict, description="for the handler; strings may hold templates")
    retry_config: RetryConfig | None = Field(default=None, description="how its failed attempts are retried")
    timeout_seconds: Annotated[float, Field(gt=0, le=limits.MAX_TIMEOUT_SECONDS)] | None = Field(
        default=None, description="longest time of one attempt"
    )


class Dag(BaseModel):
    """The directed acyclic graph of a workflow."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nodes: list[NodeDefinition] = Field(
        min_length=1, max_length=limits.MAX_NODES, description="the steps, in any order"
    )


class WorkflowDefinition(BaseModel):
    """A workflow definition."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(
        min_length=1,
        max_length=limits.MAX_NAME_CHARACTERS,
        pattern=NO_NUL,
        description="its name; versions are counted by name",
    )
    dag: Dag = Field(description="the graph")
    description: str | None = Field(
        default=None, max_length=limits.MAX_DESCRIPTION_CHARACTERS, description="for people"
    )
    input_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema of the input parameters")
    default_retry_config: RetryConfig | None = Field(default=None, description="for what its nodes leave out")


def validate_definition(
    document: object,
    handlers: Mapping[str, ConfigCheck],
    outputs: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[Problem]:
    """Every problem of a definition; empty when it may run. `handlers` are the node types that exist.

    `outputs` are the JSON Schemas of their outputs, of those that declare one.
    """
    problems, found = _shape_problems(document)
    if isinstance(document, Mapping):
        others = _name_problems(document.get("name"))
        others += _input_schema_problems(document.get("input_schema"))
        others += _Rules(_well_formed_nodes(document), handlers, outputs).check()
        problems += others
        found += len(others)
    if found > limits.MAX_PROBLEMS:
        rest = found - limits.MAX_PROBLEMS
        problems = problems[: limits.MAX_PROBLEMS]
        problems.append(Problem("$", f"{rest} more problems; mend these first"))
    return problems


def named_handlers(document: object) -> set[str]:
    """The handlers that its nodes name, as far as its shape is good."""
    nodes = _well_formed_nodes(document) if isinstance(document, Mapping) else []
    return {node.handler for node in nodes if node.handler}


def _shape_problems(document: object) -> tuple[list[Problem], int]:
    """The first so many problems, and how many there are."""
    try:
        WorkflowDefinition.model_validate(document)
    except ValidationError as error:
        return describe_errors(error, WorkflowDefinition), error.error_count()
    return [], 0


def _name_problems(name: object) -> list[Problem]:
    if isinstance(name, str) and name.startswith(FUNCTION_PREFIX):
        return [Problem("name", f"names that begin with {FUNCTION_PREFIX!r} are the engine's own; choose another")]
    return []


def _input_schema_problems(schema: object) -> list[Problem]:
    if not isinstance(schema, Mapping):
        return []
    return [Problem(join_path("input_schema", path), message) for path, message in check_input_schema(schema)]


class _Node:
    """One node as far as its shape is good, with its position in the document."""

    __slots__ = ("compiled", "config", "dependencies", "handler", "id", "place")

    def __init__(self, place: str, raw: Mapping[str, Any]) -> None:
        self.place = place
        node_id = raw.get("id")
        self.id = node_id if isinstance(node_id, str) else ""
        handler = raw.get("handler")
        self.handler = handler if isinstance(handler, str) else None
        listed = raw.get("dependencies")
        self.dependencies: list[Any] = listed if isinstance(listed, list) else []
        config = raw.get("config")
        self.config: dict[str, Any] = config if isinstance(config, dict) else {}
        self.compiled: CompiledConfig | None = None


def _well_formed_nodes(document: Mapping[str, Any]) -> list[_Node]:
    """The nodes as far as there are some; none when there are too many, which is problem enough."""
    dag = document.get("dag")
    listed = dag.get("nodes") if isinstance(dag, Mapping) else None
    if not isinstance(listed, list) or len(listed) > limits.MAX_NODES:
        return []
    return [_Node(f"dag.nodes[{index}]", raw) for index, raw in enumerate(listed) if isinstance(raw, Mapping)]


class _Rules:
    """The rules between nodes. Lenient about shapes, which are reported elsewhere."""

    def __init__(
        self, nodes: list[_Node], handlers: Mapping[str, ConfigCheck], outputs: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.nodes = nodes
        self.handlers = handlers
        self.outputs = outputs
        self.missing: dict[tuple[str, tuple[str | int, ...]], Missing | None] = {}
        self.problems: list[Problem] = []
        self.position_of: dict[str, int] = {}
        self.edges: list[list[int]] = [[] for _ in nodes]
        self.order: list[int] = []
        self.near_searches_left = limits.MAX_NEAR_SEARCHES

    def check(self) -> list[Problem]:
        self.check_ids()
        self.check_dependencies()
        self.check_order()
        self.check_handlers()
        self.check_references()
        return self.problems

    def report(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        """Near matches for the first few mistakes: looking for them costs more than all other checks."""
        if not self.near_searches_left:
            return ""
        self.near_searches_left -= 1
        return did_you_mean(word, known)

    def check_ids(self) -> None:
        for position, node in enumerate(self.nodes):
            if not node.id:
                continue
            first = self.position_of.setdefault(node.id, position)
            if first != position:
                self.report(
                    f"{node.place}.id",
                    f"{show(node.id)} is already the id of {self.nodes[first].place}; ids are unique",
                )

    def check_dependencies(self) -> None:
        edges = 0
        for position, node in enumerate(self.nodes):
            seen: set[str] = set()
            for index, name in enumerate(node.dependencies):
                edges += 1
                if not isinstance(name, str):
                    continue
                path = f"{node.place}.dependencies[{index}]"
                if name in seen:
                    self.report(path, f"{show(name)} is named twice; name it once")
                elif name == node.id:
                    self.report(path, "a node cannot depend on itself; remove it")
                elif name not in self.position_of:
                    near = self.did_you_mean(name, self.position_of)
                    self.report(path, f"there is no node with the id {show(name)}{near}")
                else:
                    self.edges[position].append(self.position_of[name])
                seen.add(name)
        if edges > limits.MAX_EDGES:
            self.report("dag.nodes", f"{edges} dependencies; at most {limits.MAX_EDGES} are allowed")

    def check_order(self) -> None:
        waiting = [len(needed) for needed in self.edges]
        dependents: list[list[int]] = [[] for _ in self.nodes]
        for position, needed in enumerate(self.edges):
            for dependency in needed:
                dependents[dependency].append(position)
        depth = [1] * len(self.nodes)
        self.order = [position for position, count in enumerate(waiting) if count == 0]
        for position in self.order:
            for after in dependents[position]:
                depth[after] = max(depth[after], depth[position] + 1)
                waiting[after] -= 1
                if waiting[after] == 0:
                    self.order.append(after)
        if len(self.order) < len(self.nodes):
            self.report_cycles({position for position, count in enumerate(waiting) if count > 0})
        if max(depth, default=0) > limits.MAX_GRAPH_DEPTH:
            self.report(
                "dag.nodes", f"a path of {max(depth)} nodes; at most {limits.MAX_GRAPH_DEPTH} may follow one another"
            )

    def report_cycles(self, stuck: set[int]) -> None:
        """One cycle for each knot: each set of nodes that all wait for each other."""
        for knot in _knots(self.edges, stuck):
            position, path = min(knot), dict[int, None]()
            while position not in path:
                path[position] = None
                position = next(dependency for dependency in self.edges[position] if dependency in knot)
            walked = list(path)
            cycle = walked[walked.index(position) :][::-1]
            names = [_show_id(self.nodes[member].id) for member in (*cycle, cycle[0])]
            shown = names if len(names) <= 12 else [*names[:10], f"... {len(names) - 12} more ...", names[-1]]
            self.report("dag.nodes", f"the nodes {' -> '.join(shown)} wait for each other; remove one dependency")

    def check_handlers(self) -> None:
        for node in self.nodes:
            node.compiled, problems = compile_config(node.config, f"{node.place}.config")
            self.problems += problems
            if not node.handler:
                continue
            check = self.handlers.get(node.handler)
            if check is None:
                known = ", ".join(sorted(self.handlers)[:20])
                near = self.did_you_mean(node.handler, self.handlers) or f"; there are {known}"
                self.report(f"{node.place}.handler", f"there is no handler {show(node.handler)}{near}")
                continue
            for path, message in check(node.config):
                if not _touches_template(node.config, path):
                    self.report(join_path(f"{node.place}.config", path), message)

    def check_references(self) -> None:
        indirect: list[tuple[int, str, Reference]] = []
        for position, node in enumerate(self.nodes):
            if node.compiled is None:
                continue
            direct = {self.nodes[dependency].id for dependency in self.edges[position]}
            for place, reference in node.compiled.references:
                if reference.root == INPUT_ROOT:
                    continue
                if self.check_reference(node, place, reference) and reference.root not in direct:
                    indirect.append((position, place, reference))
        if indirect and len(self.order) == len(self.nodes):
            self.check_ancestors(indirect)

    def check_reference(self, node: _Node, place: str, reference: Reference) -> bool:
        if reference.root not in self.position_of:
            near = self.did_you_mean(reference.root, chain((INPUT_ROOT,), self.position_of))
            self.report(place, f"template '{{{{ {reference} }}}}': there is no node {show(reference.root)}{near}")
            return False
        if reference.path[:1] != (OUTPUT_FIELD,):
            wanted = Reference(reference.root, (OUTPUT_FIELD, *reference.path))
            self.report(
                place, f"template '{{{{ {reference} }}}}': a node has only 'output'; did you mean '{{{{ {wanted} }}}}'?"
            )
            return False
        if reference.root == node.id:
            self.report(place, f"template '{{{{ {reference} }}}}': a node cannot use its own output")
            return False
        if reference.fallback is None:
            self.check_path(place, reference)
        return True

    def check_path(self, place: str, reference: Reference) -> None:
        """Report what the node that is referred to can never have in its output."""
        handler = self.nodes[self.position_of[reference.root]].handler
        schema = None if handler is None else self.outputs.get(handler)
        if handler is None or schema is None:
            return
        path = reference.path[1:]
        if (handler, path) not in self.missing:
            self.missing[handler, path] = find_missing(schema, path)
        missing = self.missing[handler, path]
        if missing is None:
            return
        parent = Reference(reference.root, reference.path[: missing.position + 1])
        segment = path[missing.position]
        what = f"item {segment}" if isinstance(segment, int) else f"key {show(segment)}"
        keys = ", ".join(missing.keys[:20])
        near = self.did_you_mean(str(segment), missing.keys) or (f"; there are {keys}" if keys else "")
        self.report(
            place,
            f"template '{{{{ {reference} }}}}': '{parent}' never has the {what}, by the output that handler "
            f"{show(handler)} declares{near}",
        )

    def check_ancestors(self, indirect: list[tuple[int, str, Reference]]) -> None:
        """One bit for each node that is referenced from afar, carried down the edges in topological order."""
        bit_of: dict[int, int] = {}
        for _, _, reference in indirect:
            target = self.position_of[reference.root]
            bit_of.setdefault(target, 1 << len(bit_of))
        above = [0] * len(self.nodes)
        for position in self.order:
            mask = 0
            for dependency in self.edges[position]:
                mask |= above[dependency] | bit_of.get(dependency, 0)
            above[position] = mask
        for position, place, reference in indirect:
            if not above[position] & bit_of[self.position_of[reference.root]]:
                self.report(
                    place,
                    f"template '{{{{ {reference} }}}}': {show(self.nodes[position].id)} does not wait for "
                    f"{show(reference.root)}; add it to the dependencies",
                )


def _knots(edges: Sequence[Sequence[int]], within: Set[int]) -> Iterator[set[int]]:
    """The strongly connected components of at least two nodes (Tarjan's algorithm, without recursion)."""
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_nodes: dict[int, None] = {}
    for root in sorted(within):
        walk = [] if root in number else [(root, iter(edges[root]))]
        while walk:
            node, rest = walk[-1]
            if node not in number:
                number[node] = lowest[node] = len(number)
                open_nodes[node] = None
            for after in rest:
                if after in within and after not in number:
                    walk.append((after, iter(edges[after])))
                    break
                if after in open_nodes:
                    lowest[node] = min(lowest[node], number[after])
            else:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                if lowest[node] == number[node]:
                    knot = {node}
                    while (member := open_nodes.popitem()[0]) != node:
                        knot.add(member)
                    if len(knot) > 1:
                        yield knot


def _show_id(node_id: str) -> str:
    return node_id if NODE_ID.fullmatch(node_id) else show(node_id)


def _touches_template(config: Mapping[str, Any], path: Iterable[str | int]) -> bool:
    """Whether the value at `path`, or as far down as the path goes, is or holds a template."""
    value: Any = config
    for segment in path:
        try:
            value = value[segment]
        except (LookupError, TypeError):
            break
    return value is not config and contains_template(value)

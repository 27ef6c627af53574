"""A compiled definition: integer node indexes, edges both ways, parsed templates, resolved policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .declared import NOTHING, Declared
from .retry import RetryPolicy
from .template import INPUT_ROOT, CompiledConfig, compile_config


@dataclass(frozen=True, slots=True)
class NodeDefaults:
    """What a node gets where its definition is silent. Delays and timeouts in seconds."""

    retry: RetryPolicy
    timeout_seconds: Callable[[str], float]
    """The timeout of an attempt, by handler name."""
    own_timeout_seconds: Callable[[str], float | None] = lambda _handler: None
    """The same where it is of this very handler; it wins over what the handler declares."""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A definition, compiled once and shared by all its executions. Sequences are by node index."""

    name: str
    node_ids: tuple[str, ...]
    index_of: Mapping[str, int]
    handlers: tuple[str, ...]
    configs: tuple[CompiledConfig, ...]
    dependencies: tuple[tuple[int, ...], ...]
    dependents: tuple[tuple[int, ...], ...]
    roots: tuple[int, ...]
    exits: tuple[int, ...]
    retry_policies: tuple[RetryPolicy, ...]
    timeouts_seconds: tuple[float, ...]
    input_schema: Mapping[str, Any] | None
    below_input_node: frozenset[int]

    def descends_from_input_node(self, node: int) -> bool:
        """Whether a node called `input` is an ancestor, so that `{{ input.output }}` can mean its output."""
        return node in self.below_input_node

    def names_for(self, node: int) -> set[str]:
        """The nodes whose outcomes an attempt may look at: its own node, its dependencies, those its templates name."""
        names = {self.node_ids[node], *(self.node_ids[each] for each in self.dependencies[node])}
        names.update(
            reference.root for _, reference in self.configs[node].references if reference.root in self.index_of
        )
        return names

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self.node_ids)


def compile_graph(
    document: Mapping[str, Any], defaults: NodeDefaults, declared: Mapping[str, Declared] = MappingProxyType({})
) -> Graph:
    """Compile a definition that `validate_definition` has found without problems. `declared`: by handler.

    A node's own fields win; then those of the definition, what its handler declares, and the defaults.
    """
    nodes: Sequence[Mapping[str, Any]] = document["dag"]["nodes"]
    node_ids = tuple(node["id"] for node in nodes)
    index_of = {node_id: index for index, node_id in enumerate(node_ids)}
    dependencies = tuple(tuple(index_of[name] for name in node.get("dependencies") or ()) for node in nodes)
    dependents: list[list[int]] = [[] for _ in nodes]
    for index, needed in enumerate(dependencies):
        for dependency in needed:
            dependents[dependency].append(index)
    handlers = tuple(node["handler"] for node in nodes)
    of_handlers = {name: declared.get(name, NOTHING) for name in handlers}
    of_workflow = document.get("default_retry_config")
    policies = {name: _overlay(said.over(defaults.retry), of_workflow) for name, said in of_handlers.items()}
    timeouts = {
        name: defaults.own_timeout_seconds(name) or said.timeout_seconds or defaults.timeout_seconds(name)
        for name, said in of_handlers.items()
    }
    return Graph(
        name=document["name"],
        node_ids=node_ids,
        index_of=index_of,
        handlers=handlers,
        configs=tuple(compile_config(node.get("config") or {}, "config")[0] for node in nodes),
        dependencies=dependencies,
        dependents=tuple(map(tuple, dependents)),
        roots=tuple(index for index, needed in enumerate(dependencies) if not needed),
        exits=tuple(index for index, after in enumerate(dependents) if not after),
        retry_policies=tuple(_overlay(policies[node["handler"]], node.get("retry_config")) for node in nodes),
        timeouts_seconds=tuple(float(node.get("timeout_seconds") or timeouts[node["handler"]]) for node in nodes),
        input_schema=document.get("input_schema"),
        below_input_node=_descendants(index_of.get(INPUT_ROOT), dependents),
    )


def _descendants(node: int | None, dependents: Sequence[Sequence[int]]) -> frozenset[int]:
    found: set[int] = set()
    stack = [] if node is None else [node]
    while stack:
        for after in dependents[stack.pop()]:
            if after not in found:
                found.add(after)
                stack.append(after)
    return frozenset(found)


def _overlay(base: RetryPolicy, given: Mapping[str, Any] | None) -> RetryPolicy:
    if not given:
        return base

    def pick(key: str, fallback: Any) -> Any:
        value = given.get(key)
        return fallback if value is None else value

    return RetryPolicy(
        max_retries=pick("max_retries", base.max_retries),
        initial_delay_seconds=float(pick("initial_delay", base.initial_delay_seconds)),
        max_delay_seconds=float(pick("max_delay", base.max_delay_seconds)),
        exponential_base=float(pick("exponential_base", base.exponential_base)),
        jitter=pick("jitter", base.jitter),
    )

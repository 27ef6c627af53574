"""What handlers declare for nodes that say nothing: between what workflows say and what the settings say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workflow_engine.config import load_settings
from workflow_engine.plugins import NodeContext, RetryDefaults, handler
from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.runtime.core.declared import NOTHING, Declared, read_declared
from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.parts import node_defaults

DEFAULTS = NodeDefaults(RetryPolicy(3, 1.0, 60.0, 2.0, True), lambda _handler: 30.0, {"set_by_operator": 7.0}.get)
SAID = Declared(timeout_seconds=5.0, retry={"max_retries": 9, "jitter": False})


def compiled(declared: Declared, handler_name: str = "h", **node: Any) -> tuple[float, RetryPolicy]:
    """The timeout and the retries of a node of a workflow that wants an initial delay of 4 seconds."""
    nodes = [{"id": "n", "handler": handler_name, **node}]
    document = {"name": "w", "dag": {"nodes": nodes}, "default_retry_config": {"initial_delay": 4.0}}
    graph = compile_graph(document, DEFAULTS, {handler_name: declared})
    return graph.timeouts_seconds[0], graph.retry_policies[0]


def test_what_is_declared_wins_over_the_settings_and_not_over_the_workflow() -> None:
    assert compiled(NOTHING) == (30.0, RetryPolicy(3, 4.0, 60.0, 2.0, True))
    assert compiled(SAID) == (5.0, RetryPolicy(9, 4.0, 60.0, 2.0, False))
    assert compiled(SAID._replace(retry={"initial_delay_seconds": 8.0}))[1].initial_delay_seconds == 4.0
    assert compiled(SAID, timeout_seconds=1, retry_config={"max_retries": 0}) == (
        1.0,
        RetryPolicy(0, 4.0, 60.0, 2.0, False),
    )


def test_what_the_operator_says_of_this_very_handler_wins_over_what_it_declares() -> None:
    assert compiled(SAID, "set_by_operator")[0] == 7.0
    assert compiled(SAID, "set_by_operator", timeout_seconds=1)[0] == 1.0


def test_a_variable_of_a_handler_is_of_this_very_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDLER_TIMEOUT_MINE", "11")
    monkeypatch.setenv("HANDLER_TIMEOUT_DEFAULT", "12")
    defaults = node_defaults(load_settings())

    assert (defaults.own_timeout_seconds("mine"), defaults.own_timeout_seconds("other")) == (11.0, None)
    assert defaults.timeout_seconds("other") == 12.0


def test_what_the_catalogue_has_is_what_was_declared() -> None:
    retry = RetryDefaults(max_retries=0, initial_delay_seconds=1, max_delay_seconds=2, exponential_base=3, jitter=True)

    @handler("h", timeout_seconds=5, stale_timeout_seconds=6, retry=retry)
    def h(_config: dict[str, Any], _context: NodeContext) -> None:
        """Do nothing."""

    [record] = Catalogue([h]).records
    said = read_declared(record.declared)

    assert (said.timeout_seconds, said.stale_timeout_seconds) == (5.0, 6.0)
    assert said.over(RetryPolicy()) == RetryPolicy(0, 1.0, 2.0, 3.0, True)


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "{",
        "[]",
        "5",
        "{}",
        json.dumps({"timeout_seconds": 0, "stale_timeout_seconds": -1, "retry": {}}),
        json.dumps({"timeout_seconds": "5", "stale_timeout_seconds": True, "retry": 3}),
        json.dumps({"timeout_seconds": 1e9, "retry": {"max_retries": 1.5, "exponential_base": 0, "jitter": 1}}),
        '{"timeout_seconds": NaN, "retry": {"max_retries": true, "max_delay_seconds": Infinity, "more": 1}}',
    ],
)
def test_what_is_no_declaration_says_nothing(said: str | None) -> None:
    assert read_declared(said) == NOTHING

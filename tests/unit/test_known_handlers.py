"""Handlers that other processes have: what is known of them, and what their configurations are held to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from workflow_engine.plugins import Handler, handler
from workflow_engine.plugins.discovery import Catalogue, Origin, PluginError, discover
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.config_schema import SchemaCheck, usable_schema
from workflow_engine.runtime.core.definition import ConfigCheck, named_handlers, validate_definition
from workflow_engine.runtime.core.limits import MAX_CONFIG_SCHEMA_BYTES
from workflow_engine.runtime.errors import StoreUnavailable
from workflow_engine.runtime.known_handlers import BELIEVED_SECONDS, KNOWN_MILLISECONDS, KnownHandlers
from workflow_engine.runtime.ports import HandlerRecord
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.worker.announcer import Announcer

NOW = 1_790_000_000_000


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1)]
    colour: Literal["red", "blue"] = "red"


class Config(BaseModel):
    """Everything that configurations are made of."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(pattern="^https://")]
    limit: int | None = None
    parts: list[Part] = Field(default_factory=list)
    more: dict[str, Part] = Field(default_factory=dict)


@handler("here")
async def here(_config: Any, _context: Any) -> None:
    """Is here."""


@handler("there", config=Config)
async def there(_config: Any, _context: Any) -> None:
    """Is elsewhere."""


def document(*nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    listed = [{"id": f"n{place}", "handler": name, "config": config} for place, (name, config) in enumerate(nodes)]
    return {"name": "flow", "dag": {"nodes": listed}}


class OwnedClock(SystemClock):
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return NOW + int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


class CountingStore(MemoryStore):
    """Counts how often the handlers are read; `away`: it cannot be."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.away = False

    async def list_handlers(self, seen_from: int) -> Sequence[HandlerRecord]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        return await super().list_handlers(seen_from)


@pytest.fixture
def clock() -> OwnedClock:
    return OwnedClock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def known(store: CountingStore, clock: OwnedClock, *, run_elsewhere: bool = True) -> KnownHandlers:
    catalogue = Catalogue([here])
    return KnownHandlers(
        here=catalogue.records,
        config_checks=catalogue.config_checks,
        store=store,
        clock=clock,
        run_elsewhere=run_elsewhere,
    )


async def problems(handlers: KnownHandlers, *nodes: tuple[str, dict[str, Any]]) -> list[tuple[str, str]]:
    found = validate_definition(document(*nodes), await handlers.checks(document(*nodes)))
    return [(problem.path, problem.message) for problem in found]


# --- what is known ----------------------------------------------------------------------------------------


async def test_a_handler_that_is_elsewhere_may_be_named_and_its_config_is_checked(
    store: CountingStore, clock: OwnedClock
) -> None:
    await store.save_handlers(Catalogue([there]).records, NOW)
    handlers = known(store, clock)
    assert await problems(handlers, ("here", {}), ("there", {"url": "https://a"})) == []
    found = await problems(handlers, ("there", {"url": "http://a", "parts": [{"size": 0}], "x": 1}))
    assert sorted(path for path, _ in found) == [
        "dag.nodes[0].config",
        "dag.nodes[0].config.parts[0].size",
        "dag.nodes[0].config.url",
    ]
    assert "('x' was unexpected)" in next(message for path, message in found if path == "dag.nodes[0].config")


async def test_where_others_run_nothing_of_it_only_what_is_here_counts(store: CountingStore, clock: OwnedClock) -> None:
    await store.save_handlers(Catalogue([there]).records, NOW)
    handlers = known(store, clock, run_elsewhere=False)
    [(path, message)] = await problems(handlers, ("there", {}))
    assert (path, message) == ("dag.nodes[0].handler", "there is no handler 'there'; did you mean 'here'?")
    assert [each.name for each in await handlers.records()] == ["here"]
    assert store.reads == 0


async def test_the_store_is_asked_only_for_what_is_not_here_and_believed_for_a_while(
    store: CountingStore, clock: OwnedClock
) -> None:
    await store.save_handlers(Catalogue([there]).records, NOW)
    handlers = known(store, clock)
    config = {"url": "https://a"}
    assert await problems(handlers, ("here", {})) == []
    assert store.reads == 0
    await asyncio.gather(*(problems(handlers, ("there", config)) for _ in range(10)))
    clock.seconds = BELIEVED_SECONDS
    assert await problems(handlers, ("there", config)) == []
    assert store.reads == 1
    clock.seconds = BELIEVED_SECONDS + 0.1
    assert await problems(handlers, ("there", config)) == []
    assert store.reads == 2


async def test_what_nobody_is_known_to_have_is_looked_up_once_more(store: CountingStore, clock: OwnedClock) -> None:
    await store.save_handlers(Catalogue([there]).records, NOW)
    handlers = known(store, clock)
    assert await problems(handlers, ("there", {"url": "https://a"})) == []
    clock.seconds = 0.5
    [(path, message)] = await problems(handlers, ("theer", {}))
    assert (path, message) == ("dag.nodes[0].handler", "there is no handler 'theer'; did you mean 'there' or 'here'?")
    assert store.reads == 2
    clock.seconds = 1.0
    await store.save_handlers([HandlerRecord("theer", "", None, None, None)], clock.now())
    assert await problems(handlers, ("theer", {"anything": 1})) == []
    assert store.reads == 3


async def test_what_is_here_is_checked_by_itself(store: CountingStore, clock: OwnedClock) -> None:
    await store.save_handlers([HandlerRecord("here", "other", '{"required": ["x"]}', None, None)], NOW)
    await store.save_handlers(Catalogue([there]).records, NOW)
    handlers = known(store, clock)
    assert await problems(handlers, ("here", {}), ("there", {"url": "https://a"})) == []
    assert [each.description for each in await handlers.records()] == ["Is here.", "Is elsewhere."]


async def test_what_no_process_has_had_for_long_is_forgotten(store: CountingStore, clock: OwnedClock) -> None:
    await store.save_handlers(Catalogue([there]).records, NOW - KNOWN_MILLISECONDS)
    handlers = known(store, clock)
    assert await problems(handlers, ("there", {"url": "https://a"})) == []
    clock.seconds = 10.0
    assert [path for path, _ in await problems(handlers, ("there", {"url": "https://a"}))] == ["dag.nodes[0].handler"]


async def test_a_store_that_is_away_refuses_nothing_that_it_might_know(store: CountingStore, clock: OwnedClock) -> None:
    store.away = True
    handlers = known(store, clock)
    with pytest.raises(StoreUnavailable):
        await problems(handlers, ("there", {}))
    assert await problems(handlers, ("here", {})) == []


@pytest.mark.parametrize(
    "shapeless", [None, [], {}, {"dag": []}, {"dag": {"nodes": {}}}, {"dag": {"nodes": [1, {"handler": 2}, {}]}}]
)
def test_a_document_without_a_shape_names_no_handler(shapeless: object) -> None:
    assert named_handlers(shapeless) == set()


# --- what configurations are held to ------------------------------------------------------------------------


def check_of(schema: Any) -> ConfigCheck:
    return SchemaCheck(usable_schema(json.dumps(schema)))


def of_model() -> ConfigCheck:
    return SchemaCheck(usable_schema(Catalogue([there]).records[0].config_schema))


def paths(check: ConfigCheck, config: dict[str, Any]) -> list[str]:
    """The paths of what a definition with one such node is refused for."""
    found = validate_definition(document(("there", config)), {"there": check})
    return sorted(problem.path.removeprefix("dag.nodes[0].config") for problem in found)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"url": "https://a", "limit": 3, "parts": [{"size": 1, "colour": "blue"}]}, []),
        ({}, [""]),
        ({"url": 5}, [".url"]),
        ({"url": "https://a", "limit": "many"}, [".limit"]),
        ({"url": "https://a", "parts": [{"size": 1}, {"colour": "green"}]}, [".parts[1]", ".parts[1].colour"]),
        ({"url": "https://a", "more": {"a": {"size": 0}}}, [".more.a.size"]),
        ({"url": "{{ input.url }}"}, []),
        ({"url": "https://a", "limit": "{{ input.limit }}"}, []),
        ({"url": "https://a", "parts": "{{ input.parts }}"}, []),
        ({"url": "https://a", "parts": [{"size": "{{ input.n }}"}, {"size": 0}]}, [".parts[1].size"]),
        ({"url": "https://a", "more": {"a": {"colour": "{{ input.colour }}"}}}, []),
        ({"url": "{{ input.url }}", "x": 1}, [""]),
        ({"limit": "{{ input.limit }}"}, [""]),
    ],
)
def test_a_config_is_held_to_the_schema_as_far_as_it_is_known(config: dict[str, Any], expected: list[str]) -> None:
    assert paths(of_model(), config) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"properties": {"kind": {"const": kind}, kind: {"type": "integer"}}} for kind in "ab"]},
        {"not": {"properties": {"kind": {"type": "string"}}, "required": ["kind"]}},
        {"anyOf": [{"properties": {"kind": {"const": "a"}}}]},
    ],
)
def test_what_a_template_may_still_decide_passes(schema: dict[str, Any]) -> None:
    assert paths(check_of(schema), {"kind": "{{ input.kind }}"}) == []
    assert paths(check_of(schema), {"kind": "c"}) == [""]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "true",
        "[" * 100_000,
        '{"$schema": "nobody knows"}',
        '{"type": "nonsense"}',
        '{"$ref": "http://example.com/schema"}',
        '{"properties": {"url": {"pattern": "(?=a)b"}}}',
        '{"minimum": NaN}',
    ],
)
def test_a_schema_that_cannot_be_used_holds_nothing_back(text: str | None) -> None:
    assert usable_schema(text) is None
    assert SchemaCheck(usable_schema(text))({"anything": "goes"}) == ()


def test_a_schema_that_never_ends_holds_nothing_up() -> None:
    """All nodes of a definition together are checked in a bounded number of steps; what is left passes."""
    wide = {"anyOf": [{"items": {"$ref": "#/$defs/deep"}, "maxItems": 1}] * 8}
    check = check_of({"$defs": {"deep": wide}, "properties": {"list": {"$ref": "#/$defs/deep"}}})
    nested: Any = [1, 2]
    for _ in range(20):
        nested = [nested]
    assert paths(check, {"list": nested}) == []
    assert list(check({"list": [1, 2]})) == [], "nothing is left to check this with"
    assert check_of({"$defs": {"loop": {"$ref": "#/$defs/loop"}}, "$ref": "#/$defs/loop"})({}) == ()


# --- what is told to others ---------------------------------------------------------------------------------


def test_a_catalogue_as_others_hear_of_it() -> None:
    records = Catalogue([there, here], {"there": Origin("a-plugin", "1.2")}).records
    assert [(each.name, each.description) for each in records] == [("here", "Is here."), ("there", "Is elsewhere.")]
    assert [(each.distribution, each.version) for each in records] == [(None, None), ("a-plugin", "1.2")]
    assert records[0].config_schema is None
    assert json.loads(records[1].config_schema or "") == Config.model_json_schema()


class Unspeakable(BaseModel):
    """JSON Schema has no words for it."""

    value: Any = Field(default=object())

    @classmethod
    def __get_pydantic_json_schema__(cls, *_arguments: Any) -> Any:
        raise RuntimeError("no")


class Odd(BaseModel):
    value: Any = Field(default=float("nan"))


class Vast(BaseModel):
    value: str = Field(description="x" * MAX_CONFIG_SCHEMA_BYTES)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Unspeakable, "has no JSON Schema: RuntimeError: no; annotate the field with WithJsonSchema"),
        (Odd, "has a JSON Schema that cannot be told to others: "),
        (Vast, "has a JSON Schema that cannot be told to others: "),
    ],
)
def test_a_handler_whose_schema_cannot_be_told(model: type[BaseModel], why: str) -> None:
    with pytest.raises(PluginError) as caught:
        discover({}, [Handler("odd", here.run, model, "")])
    assert str(caught.value).startswith(f"plugin odd cannot be used: the config of handler 'odd' {why}")


def test_what_no_store_can_hold_is_left_out() -> None:
    record = Catalogue([Handler("odd", here.run, None, "a\0b \ud800 c")], {"odd": Origin("d\0", None)}).records[0]
    assert record == HandlerRecord("odd", "ab ? c", None, "d", None, None, '{"lane": "async"}')


async def test_the_announcer_goes_on_after_a_store_that_was_away(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[Sequence[HandlerRecord], int]] = []
    done = asyncio.Event()

    class AwayTwice:
        async def save_handlers(self, records: Sequence[HandlerRecord], seen_at: int) -> None:
            told.append((records, seen_at))
            if len(told) == 1:
                raise StoreUnavailable("away")
            if len(told) == 2:
                raise ValueError("nobody knows")
            done.set()

    store: Any = AwayTwice()
    records = Catalogue([here]).records
    announcer = Announcer(store=store, clock=OwnedClock(), handlers=records, interval_seconds=0)
    running = asyncio.ensure_future(announcer.run())
    await asyncio.wait_for(done.wait(), 60)
    running.cancel()
    assert told[:3] == [(records, NOW)] * 3
    assert "for now: away" in caplog.text

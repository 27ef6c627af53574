"""Paths into outputs whose schema is declared: what can never be there is refused, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, computed_field, model_serializer

from workflow_engine.plugins.schemas import OUTPUT_MODE, schema_text
from workflow_engine.runtime.core.definition import validate_definition
from workflow_engine.runtime.core.output_schema import Missing, find_missing, output_schemas


class Kind(Enum):
    """A kind."""

    SMALL = "small"


class Point(BaseModel):
    """A point."""

    x: int
    y: int = 0


class Circle(BaseModel):
    """A circle."""

    kind: Literal["circle"] = "circle"
    center: Point
    radius: float


class Square(BaseModel):
    """A square."""

    kind: Literal["square"] = "square"
    corners: tuple[Point, Point]


class Tree(BaseModel):
    """A tree."""

    value: int
    children: list[Tree] = []


class Open(BaseModel):
    """May have more."""

    model_config = ConfigDict(extra="allow")
    known: int = 1


class Changed(BaseModel):
    """Writes something else than it has."""

    a: int = 1

    @model_serializer
    def write(self) -> dict[str, Any]:
        return {"anything": self.a}


class Everything(BaseModel):
    """A bit of everything."""

    point: Point | None = None
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    tree: Tree = Tree(value=1, children=[Tree(value=2)])
    labels: dict[str, Point] = {}
    free: Any = {"deep": {"er": 1}}
    data: dict[str, Any] = {"x": [1]}
    some: list[Point | int] = [1, Point(x=2)]
    opened: Open = Open.model_validate({"more": {"x": 1}})
    changed: Changed = Changed()
    when: datetime = datetime(2026, 1, 1)  # noqa: DTZ001
    kind: Kind = Kind.SMALL
    renamed: int = Field(default=1, serialization_alias="newName")
    hidden: int = Field(default=1, exclude=True)

    @computed_field
    def total(self) -> int:
        return 3


class Listed(RootModel[list[Point]]):
    """A list of points."""


VALUES: list[BaseModel] = [
    Everything(point=Point(x=1), shape=Circle(center=Point(x=1), radius=2), labels={"a": Point(x=1)}),
    Everything(shape=Square(corners=(Point(x=1), Point(x=2)))),
    Tree(value=1, children=[Tree(value=2, children=[Tree(value=3)])]),
    Listed([Point(x=1)]),
    Open.model_validate({"more": [1]}),
    Changed(),
]


def schema_of(model: type[BaseModel]) -> Any:
    """Its schema as handlers publish it."""
    return json.loads(schema_text(model, OUTPUT_MODE) or "")


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every path into a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from paths_of(below, (*path, key))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_a_model_writes_can_be_there(value: BaseModel) -> None:
    schema = schema_of(type(value))
    written = TypeAdapter(type(value)).dump_python(value, mode="json", by_alias=True)
    paths = list(paths_of(written))
    assert len(paths) > 1
    assert [path for path in paths if find_missing(schema, path)] == []


KEYS = ["changed", "data", "free", "kind", "labels", "newName", "opened"]
KEYS += ["point", "shape", "some", "total", "tree", "when"]


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        (("nothing",), Missing(0, KEYS)),
        (("renamed",), Missing(0, KEYS)),
        (("hidden",), Missing(0, KEYS)),
        ((0,), Missing(0, KEYS)),
        (("point", "z"), Missing(1, ["x", "y"])),
        (("point", "x", "y"), Missing(2, [])),
        (("shape", "center", "z"), Missing(2, ["x", "y"])),
        (("shape", "size"), Missing(1, ["center", "corners", "kind", "radius"])),
        (("shape", "corners", 2), Missing(2, [])),
        (("tree", "children", 7, "children", 0, "name"), Missing(5, ["children", "value"])),
        (("tree", "children", "first"), Missing(2, [])),
        (("labels", "any", "z"), Missing(2, ["x", "y"])),
        (("some", 5, "z"), Missing(2, ["x", "y"])),
        (("when", "year"), Missing(1, [])),
        (("kind", "small"), Missing(1, [])),
        (("total", 0), Missing(1, [])),
        (("free", "any", 3), None),
        (("data", "any", "thing"), None),
        (("opened", "any", "thing"), None),
        (("changed", "any"), None),
        (("tree", "children", 1000, "value"), None),
    ],
)
def test_what_can_never_be_there(path: tuple[str | int, ...], missing: Missing | None) -> None:
    assert find_missing(schema_of(Everything), path) == missing


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "properties": {}, "patternProperties": {"^b": {}}},
        {"type": "object", "properties": {}, "unevaluatedProperties": True},
        {"type": "object", "properties": {}, "if": {}},
        {"properties": {}, "$ref": "#/$defs/a"},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        {"anyOf": [{"type": "null"}, {}]},
        {"allOf": [{"properties": {}}, {"properties": {}}]},
        {"enum": [1, {"b": {"c": 1}}]},
        {"type": 5},
        {"type": "object", "properties": 5},
        {"anyOf": 5},
        {"oneOf": [{"type": "null"}] * 100},
    ],
)
def test_what_cannot_be_told_passes(schema: dict[str, Any]) -> None:
    assert find_missing(schema, ("b", "c")) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"const": "x"},
        {"enum": ["x", 1]},
        {"type": "object", "additionalProperties": False},
        {"type": "object", "properties": {"a": {}}},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "integer"}}},
    ],
)
def test_what_can_be_told_does_not(schema: dict[str, Any]) -> None:
    missing = find_missing(schema, ("b",))
    assert missing is not None
    assert missing.position == 0


def test_schemas_that_are_none_are_left_out() -> None:
    assert output_schemas([("a", None), ("b", "{"), ("c", "true"), ("d", '{"type": "null"}')]) == {
        "d": {"type": "null"}
    }


# --- in a definition --------------------------------------------------------------------------------------


def problems(template: str) -> list[tuple[str, str]]:
    """What is said of a definition whose second node uses the first one's output so."""
    nodes = [
        {"id": "a", "handler": "make"},
        {"id": "b", "handler": "use", "dependencies": ["a"], "config": {"value": template}},
    ]
    handlers = {"make": lambda _config: (), "use": lambda _config: ()}
    document = {"name": "n", "dag": {"nodes": nodes}}
    found = validate_definition(document, handlers, {"make": schema_of(Everything)})
    return [(problem.path, problem.message) for problem in found]


@pytest.mark.parametrize(
    "template", ["{{ a.output }}", "{{ a.output.point.x }}", "{{ default(a.output.nothing, 1) }}", "{{ input.x.y }}"]
)
def test_templates_that_may_be_right(template: str) -> None:
    assert problems(template) == []


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ a.output.pint.x }}",
            "template '{{ a.output.pint.x }}': 'a.output' never has the key 'pint', by the output that handler 'make' "
            "declares; did you mean 'point'?",
        ),
        (
            "p = {{ a.output.point.zzz }}!",
            "template '{{ a.output.point.zzz }}': 'a.output.point' never has the key 'zzz', by the output that handler "
            "'make' declares; there are x, y",
        ),
        (
            "{{ a.output.point.x[0] }}",
            "template '{{ a.output.point.x[0] }}': 'a.output.point.x' never has the item 0, by the output that handler "
            "'make' declares",
        ),
    ],
)
def test_templates_that_cannot(template: str, message: str) -> None:
    assert problems(template) == [("dag.nodes[1].config.value", message)]

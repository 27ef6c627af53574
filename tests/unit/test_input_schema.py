"""Input schemas: paths of errors, patterns in linear time, no fetching, no way around either, and bounded work."""

from __future__ import annotations

import inspect
import re
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
import referencing
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_engine.runtime.core import input_schema
from workflow_engine.runtime.core.input_schema import MAX_SCHEMA_PROBLEMS, check_input_schema, validate_input
from workflow_engine.runtime.core.limits import MAX_SCHEMA_LEVELS, MAX_SCHEMA_PATTERNS
from workflow_engine.runtime.core.problem import Problem, join_path

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"

CATASTROPHIC = "^(a+)+$"
VICTIM = "a" * 50_000 + "!"


class EngineUsed(BaseException):
    """Something reached for Python's own regular expressions, or for the network. No `except Exception` hides it."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise EngineUsed("opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture(autouse=True)
def _no_users_pattern_in_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's pattern that reaches Python's `re` from `jsonschema` would hold the process for years."""
    search = re.search

    def guarded(pattern: Any, *arguments: Any, **options: Any) -> Any:
        if CATASTROPHIC in str(pattern):
            raise EngineUsed(f"{pattern} was searched by Python's re")
        return search(pattern, *arguments, **options)

    monkeypatch.setattr(re, "search", guarded)
    yield


def faults(schema: dict[str, Any]) -> list[str]:
    """The paths of what keeps a schema from being used."""
    return sorted(join_path("s", path) for path, _ in check_input_schema(schema))


def accepted(schema: dict[str, Any], parameters: dict[str, Any]) -> bool:
    """Whether parameters fit a schema that has no faults."""
    assert check_input_schema(schema) == []
    return validate_input(schema, parameters, "in") == []


# --- errors with paths ----------------------------------------------------------------------------


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        "zip code": {"pattern": "^[0-9]{4}$"},
        "address": {"type": "object", "required": ["city"], "additionalProperties": False, "properties": {"city": {}}},
    },
    "required": ["name"],
}


def test_what_fits() -> None:
    assert accepted(PERSON, {"name": "Ada", "age": 36, "tags": ["a", "b"], "zip code": "3000", "other": None})
    assert accepted({}, {"anything": [1]})


def test_every_error_with_its_path() -> None:
    parameters = {"age": -1, "tags": ["a", "c", "a"], "zip code": "x", "address": {"street": 1}}
    problems = validate_input(PERSON, parameters, "input_params")
    assert sorted(problem.path for problem in problems) == [
        "input_params",
        "input_params.address",
        "input_params.address",
        "input_params.age",
        "input_params.tags",
        "input_params.tags[1]",
        "input_params['zip code']",
    ]
    messages = {problem.message for problem in problems}
    assert messages >= {
        "'name' is a required property",
        "'city' is a required property",
        "-1 is less than the minimum of 0",
        "'c' is not one of ['a', 'b']",
        "'x' does not match ^[0-9]{4}$",
    }


def test_messages_are_short_whatever_the_input_and_the_schema() -> None:
    schema = {
        "properties": {
            "text": {"type": "integer", "enum": ["z" * 10**5]},
            "list": {"type": "object", "anyOf": [{"type": "string"}, {"minItems": 10**7}]},
            "extra": {"additionalProperties": False},
            "x": {"pattern": "b" * 10_000, "const": "y" * 10**5},
        }
    }
    parameters = {"text": "x" * 10**6, "list": [["y" * 10**6]], "extra": {"k" * 10**6: 1}, "x": "x" * 10**6}
    problems = validate_input(schema, parameters, "in")
    assert len(problems) >= 6
    assert all(len(problem.message) <= 500 and len(problem.path) < 200 for problem in problems)


def test_no_more_than_so_many_errors() -> None:
    problems = validate_input({"properties": {"a": {"items": {"type": "string"}}}}, {"a": [0] * 10_000}, "in")
    assert [problem.path for problem in problems] == [f"in.a[{index}]" for index in range(MAX_SCHEMA_PROBLEMS)]


def test_a_schema_that_is_not_one() -> None:
    schema = {
        "type": "objekt",
        "properties": {"a": {"minimum": "1"}, "b": {"type": ["string", 5]}, "c": 3},
        "required": "a",
        "$ref": 5,
    }
    assert set(faults(schema)) == {"s.type", "s.properties.a.minimum", "s.properties.b.type", "s.properties.c",
                                   "s.required", "s['$ref']"}  # fmt: skip


def test_messages_about_a_schema_are_short() -> None:
    for _, message in check_input_schema({"type": {"a": "x" * 10**6}, "minimum": "y" * 10**6}):
        assert len(message) <= 500
    assert len(check_input_schema({"properties": {f"p{n}": {"type": "x"} for n in range(200)}})) == MAX_SCHEMA_PROBLEMS


@pytest.mark.parametrize("draft", [DRAFT_4, DRAFT_7, DRAFT_2019, DRAFT_2020, DRAFT_2020 + "#"])
def test_known_drafts(draft: str) -> None:
    assert accepted({"$schema": draft, "properties": {"a": {"type": "integer"}}}, {"a": 1})
    assert not accepted({"$schema": draft, "properties": {"a": {"type": "integer"}}}, {"a": "1"})


def test_the_draft_decides_what_keywords_mean() -> None:
    limits: dict[str, Any] = {"properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}}
    assert faults(limits) == ["s.properties.a.exclusiveMinimum"]
    assert not accepted({"$schema": DRAFT_4, **limits}, {"a": 1})
    tuples = {"properties": {"a": {"items": [{"type": "string"}]}}}
    assert faults(tuples) == ["s.properties.a.items"]
    assert not accepted({"$schema": DRAFT_7, **tuples}, {"a": [1]})


@pytest.mark.parametrize("draft", ["http://nowhere.example/schema", "", 5, None, [], {}, "http://[::"], ids=repr)
def test_unknown_drafts_are_refused(draft: Any) -> None:
    assert "s['$schema']" in faults({"$schema": draft})


# --- patterns -------------------------------------------------------------------------------------


def test_patterns_search_anywhere_as_json_schema_says() -> None:
    schema = {"properties": {"a": {"pattern": "b+"}}}
    assert accepted(schema, {"a": "abbc"})
    assert accepted(schema, {"a": 5})
    assert not accepted(schema, {"a": "ac"})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"pattern": CATASTROPHIC}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"x": {"pattern": CATASTROPHIC}}}}},
        {"propertyNames": {"pattern": CATASTROPHIC}},
        {"patternProperties": {CATASTROPHIC: True}, "additionalProperties": False},
        {"patternProperties": {CATASTROPHIC: {}}, "additionalProperties": {"type": "integer"}},
        {"allOf": [{"not": {"patternProperties": {CATASTROPHIC: {}}, "additionalProperties": True}}]},
        {"$schema": DRAFT_2020, "properties": {"x": {"pattern": CATASTROPHIC}, "y": {"$ref": "#"}}},
        {
            "$schema": DRAFT_7,
            "properties": {"x": {"pattern": CATASTROPHIC}},
            "allOf": [{"properties": {VICTIM: {"$ref": "#"}}}],
        },
        {"$schema": DRAFT_4, "patternProperties": {CATASTROPHIC: {}}, "additionalProperties": False},
    ],
)
def test_a_catastrophic_pattern_runs_in_linear_time(schema: dict[str, Any]) -> None:
    """In Python's own engine the first of these would not end before the sun does."""
    assert check_input_schema(schema) == []
    parameters = {"x": VICTIM, "y": {"x": VICTIM}, VICTIM: {"x": VICTIM}}
    problems = validate_input(schema, parameters, "in")
    assert problems
    assert all(len(problem.message) <= 500 for problem in problems)


@pytest.mark.parametrize("place", ["$defs/x", "items", "not", "properties/x", "allOf/0"])
def test_a_draft_named_below_the_top_is_refused(place: str) -> None:
    """With it a part of the schema would be checked by a validator of its own, with Python's patterns."""
    below = {"$schema": DRAFT_2020, "pattern": CATASTROPHIC}
    keyword, _, name = place.partition("/")
    schema = {keyword: [below] if name == "0" else {name: below} if name else below}
    (fault,) = faults(schema)
    assert fault.endswith("['$schema']")


def test_property_called_schema_is_a_property() -> None:
    assert accepted({"properties": {"$schema": {"type": "string"}}}, {"$schema": "x"})


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)b", "(a)\\1", "(", "[z-a]", "a{2,1}", "(a{1000}){1000}", "\\"])
def test_patterns_that_cannot_be_used(pattern: str) -> None:
    schema = {
        "properties": {"a": {"pattern": pattern}},
        "items": {"patternProperties": {pattern: {}, "fine": {"pattern": pattern}}},
    }
    assert faults(schema) == [
        "s.items.patternProperties",
        "s.items.patternProperties.fine.pattern",
        "s.properties.a.pattern",
    ]
    for _, message in check_input_schema(schema):
        assert message.startswith("the pattern ")
        assert " cannot be used: " in message


def test_patterns_in_data_are_data() -> None:
    data = {"pattern": "(?=a)", "$ref": "http://elsewhere/", "$schema": "x"}
    schema = {"enum": [data], "const": data, "default": data, "examples": [data]}
    assert check_input_schema(schema) == []
    assert accepted({"properties": {"a": schema}}, {"a": data})


# --- names that look like keywords ----------------------------------------------------------------

KEYWORDS = [
    "properties",
    "patternProperties",
    "pattern",
    "$ref",
    "$defs",
    "definitions",
    "dependentSchemas",
    "enum",
    "const",
    "default",
    "examples",
    "items",
    "type",
    "required",
    "$schema",
    "$id",
]


@pytest.mark.parametrize("name", KEYWORDS)
@pytest.mark.parametrize("keyword", ["properties", "$defs", "dependentSchemas", "patternProperties"])
def test_what_is_named_like_a_keyword_is_looked_into(keyword: str, name: str) -> None:
    name = re.escape(name) if keyword == "patternProperties" else name
    inner = {"pattern": "(?=a)", "properties": {name: {"pattern": "(?=b)"}}}
    assert sorted(path[-1] for path, _ in check_input_schema({keyword: {name: inner}})) == ["pattern", "pattern"]
    remote = {"$ref": "http://127.0.0.1:1/x"}
    assert faults({keyword: {name: remote}}) == [join_path("s", [keyword, name, "$ref"])]


@pytest.mark.parametrize("name", KEYWORDS)
def test_properties_may_be_named_like_keywords(name: str) -> None:
    schema = {"properties": {name: {"type": "integer"}}, "additionalProperties": False}
    assert accepted(schema, {name: 1})
    assert [problem.path for problem in validate_input(schema, {name: "x"}, "in")] == [join_path("in", [name])]


# --- references -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"required": ["x"]}}},
        {"$ref": "#a", "$defs": {"b": {"$anchor": "a", "required": ["x"]}}},
        {"$dynamicRef": "#a", "$defs": {"b": {"$dynamicAnchor": "a", "required": ["x"]}}},
        {"$id": "http://e/r", "$ref": "http://e/r#/$defs/a", "$defs": {"a": {"required": ["x"]}}},
        {"$id": "http://e/r", "$ref": "r#/$defs/a", "$defs": {"a": {"required": ["x"]}}},
        {"$ref": "http://e/b", "$defs": {"b": {"$id": "http://e/b", "required": ["x"]}}},
        {
            "$ref": "http://e/b",
            "$defs": {"b": {"$id": "http://e/b", "$ref": "#c", "$defs": {"c": {"$anchor": "c", "required": ["x"]}}}},
        },
        {"$ref": "#/properties/default", "properties": {"default": {"required": ["x"]}}},
        {"$ref": "#/x-mine/a", "x-mine": {"a": {"required": ["x"]}}},
        {"$ref": "#/allOf/0", "allOf": [{"required": ["x"]}]},
        {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"required": ["x"]}}},
        {"$schema": DRAFT_7, "allOf": [{"$ref": "#a"}], "definitions": {"b": {"$id": "#a", "required": ["x"]}}},
        {"$schema": DRAFT_4, "allOf": [{"$ref": "#/definitions/b"}], "definitions": {"b": {"required": ["x"]}}},
        {"$schema": DRAFT_2019, "$ref": "#a", "$defs": {"b": {"$anchor": "a", "required": ["x"]}}},
    ],
)
def test_references_within_the_schema(schema: dict[str, Any]) -> None:
    assert accepted(schema, {"x": 1})
    assert validate_input(schema, {}, "in")[0].message == "'x' is a required property"


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.1:1/schema",
        "http://169.254.169.254/latest/meta-data",
        "https://json-schema.org/draft/2020-12/schema",
        DRAFT_7,
        "file:///etc/passwd",
        "other.json",
        "//host/x",
        "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "data:application/json,{}",
        "#/$defs/missing",
        "#missing",
        "#/properties/a/enum/0",
        "#/properties/a/default",
        "#/properties",
        "#/required/0",
        "#/%",
        "http://[::",
        "",
    ],
)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_references_to_elsewhere_are_refused(reference: str, keyword: str) -> None:
    schema = {
        "properties": {"a": {"enum": [{"pattern": CATASTROPHIC}], "default": {"pattern": CATASTROPHIC}}},
        "required": ["x"],
        "items": {keyword: reference},
    }
    if reference == "":
        assert check_input_schema(schema) == []
    else:
        (problem,) = check_input_schema(schema)
        assert problem[0] == ["items", keyword]
        assert problem[1].endswith("only references within it are followed")


def test_references_are_relative_to_where_they_stand() -> None:
    inner = {"$id": "http://e/inner", "$ref": "#/$defs/x"}
    schema = {"$defs": {"x": {"type": "string"}}, "properties": {"a": inner}}
    assert faults(schema) == ["s.properties.a['$ref']"]
    inner["$defs"] = {"x": {"type": "integer"}}  # type: ignore[assignment]
    assert accepted(schema, {"a": 1})
    assert not accepted(schema, {"a": "text"})


def test_what_a_schema_gets_past_the_checks_is_still_an_error_and_no_crash() -> None:
    """As if it had been stored by a version that checked less."""
    broken: list[dict[str, Any]] = [
        {"$ref": "http://127.0.0.1:1/x"},
        {"pattern": "("},
        {"properties": {"a": {"$ref": "#/nowhere"}}},
        {"properties": {"a": {"type": "strnig"}}},
        {"properties": {"a": {"minimum": "x"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"$schema": "http://unknown/", "type": "string"},
    ]
    for schema in broken:
        problems = validate_input(schema, {"a": 1}, "in")
        problems += validate_input(schema, {"a": "x"}, "in")
        assert all(problem.path.startswith("in") for problem in problems)
        assert problems or schema == {"pattern": "("}


# --- recursion ------------------------------------------------------------------------------------

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "children": {"items": {"$ref": "#/$defs/node"}}},
            "additionalProperties": False,
        }
    },
}


def tree(depth: int, value: Any) -> dict[str, Any]:
    return {"children": [tree(depth - 1, value)]} if depth else {"value": value}


def test_recursive_schema() -> None:
    """As deep as JSON may be nested, here."""
    assert accepted(TREE, tree(31, 1))
    (problem,) = validate_input(TREE, tree(31, "x"), "in")
    assert problem.path == "in" + ".children[0]" * 31 + ".value"


SELF = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    "inner",
    [
        SELF,
        {"allOf": [SELF]},
        {"anyOf": [SELF, False]},
        {"oneOf": [False, SELF]},
        {"not": SELF},
        {"if": SELF, "then": True},
        {"$ref": "#/$defs/b"},
        {"$dynamicRef": "#x"},
        {"properties": {"a": {}}, "dependentSchemas": {"a": SELF}},
        {"unevaluatedProperties": False, "allOf": [SELF]},
    ],
    ids=str,
)
def test_a_schema_that_refers_to_itself_without_end(inner: dict[str, Any]) -> None:
    """And does so far above the end of Python's stack, where the extension modules below would abort."""
    schema = {**SELF, "$defs": {"a": inner, "b": SELF, "c": {"$dynamicAnchor": "x", **SELF}}}
    assert check_input_schema(schema) == []
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 800)
    try:
        problems = validate_input(schema, {"a": 1}, "in")
    finally:
        sys.setrecursionlimit(before)
    assert problems == [
        Problem("in", f"input_schema refers to itself without end, or goes more than {MAX_SCHEMA_LEVELS} keywords deep")
    ]


def nested(depth: int, wrap: Callable[[Any], Any], leaf: Any) -> Any:
    for _ in range(depth):
        leaf = wrap(leaf)
    return leaf


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: {"not": inner},
        lambda inner: {"items": inner},
        lambda inner: {"allOf": [inner]},
        lambda inner: {"properties": {"a": inner}},
        lambda inner: {"anyOf": [inner, inner]},
        lambda inner: {"x-unknown": inner},
    ],
    ids=["not", "items", "allOf", "properties", "anyOf", "unknown"],
)
def test_deep_schemas(wrap: Callable[[Any], Any]) -> None:
    assert check_input_schema(nested(9, wrap, {})) == []
    for depth in (70, 5_000):
        (problem,) = check_input_schema(nested(depth, wrap, {}))
        assert problem[1].startswith("is nested deeper than") or problem[1].startswith("has more than")


# --- work -----------------------------------------------------------------------------------------


def doubling(levels: int) -> dict[str, Any]:
    """A small schema that asks for 2**levels checks."""
    rungs = {
        f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}, {"$ref": f"#/$defs/a{level + 1}"}]}
        for level in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**rungs, f"a{levels}": {"type": "object"}}}


def test_doubling_references_end() -> None:
    assert accepted(doubling(8), {})
    assert check_input_schema(doubling(60)) == []
    (problem,) = validate_input(doubling(60), {}, "in")
    assert problem.path == "in"
    assert "steps" in problem.message


UNEVALUATED: Any = {"type": "integer"}
for _ in range(20):
    UNEVALUATED = {"unevaluatedProperties": UNEVALUATED}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ({"properties": {"a": {"items": {"enum": list(range(9_000))}}}}, {"a": [-1] * 100_000}),
        lambda: ({"properties": {"a": {"anyOf": [{"type": "string"}] * 900}}}, {"a": [[0] * 100_000]}),
        lambda: ({"properties": {"a": {"items": {"anyOf": [{"pattern": "b"}] * 190}}}}, {"a": ["a" * 100] * 1_000}),
        lambda: ({"properties": {"a": {"anyOf": [{"pattern": f"b{n}"} for n in range(190)]}}}, {"a": "a" * 10**6}),
        lambda: ({"patternProperties": {f"b{n}": {} for n in range(190)}}, {f"a{n}": 0 for n in range(20_000)}),
        lambda: (
            {"patternProperties": {f"b{n}": {} for n in range(190)}, "additionalProperties": False},
            {f"a{n}": 0 for n in range(20_000)},
        ),
        lambda: ({"unevaluatedProperties": False, "properties": {}}, {f"a{n}": 0 for n in range(100_000)}),
        lambda: (UNEVALUATED, nested(20, lambda inner: {"a": inner}, "x")),
    ],
    ids=["enum", "messages", "patterns", "long text", "pattern properties", "additional", "unevaluated", "nested"],
)
def test_work_is_bounded(
    make: Callable[[], tuple[dict[str, Any], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these takes from minutes to years when nobody counts; each ends here, with an error."""
    monkeypatch.setattr(input_schema, "MAX_SCHEMA_STEPS", 20_000)
    schema, parameters = make()
    assert check_input_schema(schema) == []
    problems = validate_input(schema, parameters, "in")
    assert 1 <= len(problems) <= MAX_SCHEMA_PROBLEMS


def test_large_inputs_that_fit_are_not_refused_for_their_size() -> None:
    schema = {"properties": {"a": {"items": {"$ref": "#/$defs/n"}}}, "$defs": {"n": {"type": "integer", "minimum": 0}}}
    assert accepted(schema, {"a": [0] * 50_000})
    assert accepted({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"id": n} for n in range(20_000)]})


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([], True),
        ([1, 2, "1", "2", None, True, False, [], {}, 0.5], True),
        ([1, 1.0], False),
        ([0, False], True),
        ([1, True], True),
        ([[1], [True]], True),
        ([[1, 2], [1, 2.0]], False),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False),
        ([{"a": 1}, {"a": 2}], True),
        (["a", "b", "a"], False),
        ([None, None], False),
        ([-0.0, 0], False),
        ([1e300, int(1e300)], False),
    ],
)
def test_unique_items(items: list[Any], unique: bool) -> None:
    schema = {"properties": {"a": {"uniqueItems": True}}}
    assert accepted(schema, {"a": items}) is unique
    assert accepted({"properties": {"a": {"uniqueItems": False}}}, {"a": items})
    assert accepted(schema, {"a": "aa"})


def test_large_schemas_are_refused() -> None:
    many: list[dict[str, Any]] = [
        {"properties": {f"p{n}": {} for n in range(20_000)}},
        {"properties": {f"p{n}": True for n in range(20_000)}},
        {"allOf": [{}] * 20_000},
        {"required": [f"p{n}" for n in range(20_000)]},
        {"$defs": {f"a{n}": {"$id": f"http://e/{n}"} for n in range(20_000)}},
    ]
    for schema in many:
        (problem,) = check_input_schema(schema)
        assert problem[0] == []
        assert problem[1].startswith("has more than ")


@pytest.mark.parametrize(
    "make",
    [
        lambda count: {"properties": {f"p{n}": {"pattern": f"a{n}"} for n in range(count)}},
        lambda count: {"patternProperties": {f"a{n}": {} for n in range(count)}},
        lambda count: {"patternProperties": {f"a{n}": {"pattern": f"b{n}"} for n in range(count // 2)}},
    ],
)
def test_number_of_patterns(make: Callable[[int], dict[str, Any]]) -> None:
    """Each may take a few milliseconds to compile, and a megabyte."""
    assert check_input_schema(make(MAX_SCHEMA_PATTERNS)) == []
    assert check_input_schema(make(MAX_SCHEMA_PATTERNS + 2)) == [([], f"has more than {MAX_SCHEMA_PATTERNS} patterns")]


def test_a_long_enum_is_data() -> None:
    for draft in (DRAFT_4, DRAFT_7, DRAFT_2020):
        schema = {"$schema": draft, "properties": {"a": {"enum": [{"code": n} for n in range(9_000)]}}}
        assert accepted(schema, {"a": {"code": 8_999}})
        assert not accepted(schema, {"a": {"code": 9_000}})


def test_lookups_of_many_references_do_not_search_the_schema_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = 0
    crawl = referencing.Registry.crawl

    def count(registry: Any) -> Any:
        nonlocal searches
        searches += 1
        return crawl(registry)

    monkeypatch.setattr(referencing.Registry, "crawl", count)
    schema = {
        "$defs": {f"a{n}": {"$id": f"http://e/{n}", "$anchor": "x"} for n in range(1_000)},
        "properties": {f"p{n}": {"$ref": f"http://e/{n}#x"} for n in range(1_000)},
    }
    assert check_input_schema(schema) == []
    checked = searches
    assert validate_input(schema, {f"p{n}": 0 for n in range(1_000)}, "in") == []
    assert 1 <= checked <= searches <= 20


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"multipleOf": 0.1}, 10**400),
        ({"multipleOf": 1e-300}, 1e300),
        ({"maximum": 1.5}, 10**400),
        ({"type": "integer"}, 10**1_000),
        ({"enum": [1]}, 10**1_000),
    ],
)
def test_huge_numbers(schema: dict[str, Any], value: float) -> None:
    problems = validate_input({"properties": {"a": schema}}, {"a": value}, "in")
    assert all(len(problem.message) <= 500 for problem in problems)
    assert bool(problems) is (schema != {"type": "integer"})


# --- keywords of our own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "key", "value", "fits"),
    [
        (False, "known", 1, True),
        (False, "x-1", 1, True),
        (False, "other", 1, False),
        ({"type": "string"}, "other", "text", True),
        ({"type": "string"}, "other", 1, False),
        ({"type": "string"}, "x-1", 1, True),
        (True, "other", 1, True),
        ({}, "other", 1, True),
    ],
)
def test_additional_properties(allowed: Any, key: str, value: Any, fits: bool) -> None:
    schema = {"properties": {"known": {}}, "patternProperties": {"^x-": {}}, "additionalProperties": allowed}
    assert accepted(schema, {key: value}) is fits
    assert accepted({"properties": {"a": schema}}, {"a": [key]})


def test_additional_properties_are_named() -> None:
    schema = {"properties": {"a": {"additionalProperties": False}}}
    (problem,) = validate_input(schema, {"a": {"y": 1, "x": 2}}, "in")
    assert problem == Problem("in.a", "Additional properties are not allowed ('x', 'y' were unexpected)")
    (problem,) = validate_input(schema, {"a": {"y": 1}}, "in")
    assert problem == Problem("in.a", "Additional properties are not allowed ('y' was unexpected)")
    (problem,) = validate_input(schema, {"a": {f"k{n:03}": 1 for n in range(500)}}, "in")
    assert problem.message == (
        "Additional properties are not allowed ('k000', 'k001', 'k002', 'k003', 'k004' and 495 more were unexpected)"
    )
    typed = {"additionalProperties": {"type": "string"}}
    assert [problem.path for problem in validate_input(typed, {"x": 1, "y z": 2}, "in")] == ["in.x", "in['y z']"]


def test_pattern_properties() -> None:
    schema = {"patternProperties": {"^n": {"type": "integer"}, "s$": {"minimum": 5}}}
    assert accepted(schema, {"n": 1, "s": 5, "x": "y"})
    problems = validate_input(schema, {"ns": 1, "n": "x"}, "in")
    assert sorted(problem.path for problem in problems) == ["in.n", "in.ns"]


def test_unevaluated_properties() -> None:
    schema = {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}
    assert accepted(schema, {"a": 1})
    assert not accepted(schema, {"a": 1, "b": 2})


def test_unevaluated_and_pattern_properties_do_not_go_together() -> None:
    """`jsonschema` would search the patterns with Python's engine."""
    for schema in (
        {"patternProperties": {CATASTROPHIC: {}}, "unevaluatedProperties": False},
        {"unevaluatedProperties": False, "$ref": "#/$defs/a", "$defs": {"a": {"patternProperties": {"x": {}}}}},
        {"$schema": DRAFT_2019, "anyOf": [{"patternProperties": {"x": {}}}], "items": {"unevaluatedProperties": {}}},
    ):
        (problem,) = check_input_schema(schema)
        assert problem[0][-1] == "unevaluatedProperties"
        assert "patternProperties" in problem[1]


def test_formats_say_nothing() -> None:
    assert accepted({"properties": {"a": {"format": "regex"}, "b": {"format": "email"}}}, {"a": "(", "b": "x"})


# --- anything goes --------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["type", "properties", "items", "enum", "$ref", "$defs", "allOf", "not", "pattern", "patternProperties", "$id",
     "additionalProperties", "unevaluatedProperties", "uniqueItems", "minimum", "required", "a", "$schema", "$anchor",
     "dependentSchemas", "if", "then", "const", "multipleOf", "contains", "prefixItems", "format", "default"]
)  # fmt: skip
LEAVES = st.sampled_from(
    [None, True, False, 0, 1, -1, 0.5, "a", "string", "object", "integer", "#", "#/$defs/a", "^a", "(", "http://e/x",
     DRAFT_7, DRAFT_2020, "", "regex"]
)  # fmt: skip
SCHEMAS = st.dictionaries(
    WORDS,
    st.recursive(
        LEAVES,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(WORDS, children, max_size=3),
        max_leaves=10,
    ),
    max_size=4,
)
PARAMETERS = st.dictionaries(
    WORDS,
    st.recursive(
        LEAVES,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(WORDS, children, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=400)
@given(SCHEMAS, PARAMETERS)
def test_any_schema_is_described_or_can_be_used(schema: dict[str, Any], parameters: dict[str, Any]) -> None:
    found = check_input_schema(schema)
    assert all(message and len(message) <= 500 for _, message in found)
    for problem in validate_input(schema, parameters, "in"):
        assert problem.path.startswith("in")
        assert problem.message
        if not found:
            assert "cannot be applied" not in problem.message

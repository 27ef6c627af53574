"""Templates: what they mean, what they refuse, that they are bounded, and that values are never evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workflow_engine.runtime.core import template
from workflow_engine.runtime.core.limits import (
    MAX_EXPRESSION_CHARACTERS,
    MAX_JSON_DEPTH,
    MAX_REFERENCE_SEGMENTS,
    MAX_RENDERED_TEXT_CHARACTERS,
    MAX_TEMPLATES_PER_NODE,
)
from workflow_engine.runtime.core.problem import Problem
from workflow_engine.runtime.core.template import (
    Reference,
    TemplateFailed,
    TemplateSyntaxError,
    compile_config,
    contains_template,
    parse_text,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=10,
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,10}", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    NAMES,
    st.lists(NAMES | TEXTS | st.integers(0, 10**9 - 1), max_size=6).map(tuple),
)


@dataclass
class Scope:
    """What the templates of a test see: every node in `outputs` is an ancestor."""

    given: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    def parameters(self) -> Mapping[str, Any]:
        return self.given

    def has_output(self, node_id: str) -> bool:
        return node_id in self.outputs

    def output(self, node_id: str) -> Any:
        return self.outputs[node_id]


def problems_of(config: dict[str, Any]) -> list[Problem]:
    return compile_config(config, "config")[1]


def render_config(config: dict[str, Any], scope: Scope) -> Any:
    compiled, problems = compile_config(config, "config")
    assert problems == []
    return compiled.renderer.render(scope)


def render(text: str, **outputs: Any) -> Any:
    """The value of a text; `input` stands for the parameters, everything else for a node's output."""
    scope = Scope(outputs.pop("input", {}), outputs)
    return render_config({"value": text}, scope)["value"]


def failure(text: str, **outputs: Any) -> str:
    with pytest.raises(TemplateFailed) as caught:
        render(text, **outputs)
    return str(caught.value)


# --- what a template means ------------------------------------------------------------------------

USER = {"id": 7, "name": "Ada", "tags": ["a", "b"], "address": {"city": "Bern", "zip code": "3000"}, "none": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ user.output }}", USER),
        ("{{user.output}}", USER),
        ("{{\t\n user.output\r\n }}", USER),
        ("{{ user.output.name }}", "Ada"),
        ("{{ user.output.address.city }}", "Bern"),
        ('{{ user.output["name"] }}', "Ada"),
        ('{{ user.output["address"]["zip code"] }}', "3000"),
        ('{{ user.output.address[ "zip code" ] }}', "3000"),
        ('{{ user.output["\\u006eame"] }}', "Ada"),
        ("{{ user.output.tags }}", ["a", "b"]),
        ("{{ user.output.tags[0] }}", "a"),
        ("{{ user.output.tags[ 1 ] }}", "b"),
        ("{{ user.output.none }}", None),
        ("{{ input.limit }}", 5),
        ("{{ input.deep.list[1].x }}", True),
        ("{{ input }}", {"limit": 5, "deep": {"list": [0, {"x": True}]}}),
        ('{{ input["limit"] }}', 5),
    ],
)
def test_a_template_that_is_the_whole_text_is_the_value(text: str, value: Any) -> None:
    scope = {"user": USER, "input": {"limit": 5, "deep": {"list": [0, {"x": True}]}}}
    assert render(text, **scope) == value


@pytest.mark.parametrize("key", ["", ".", "a.b", "[0]", "0", '"', "\\", "}}", "{{", "{{ x }}", "é", "\n", "a]", " "])
def test_any_key_can_be_written_in_brackets(key: str) -> None:
    assert render(f"{{{{ a.output[{json.dumps(key)}] }}}}", a={key: 1, "other": 2}) == 1


def test_node_ids_with_dashes_and_underscores() -> None:
    assert render("{{ get-user_2.output.x }}", **{"get-user_2": {"x": 1}}) == 1
    assert render("{{ _a.output }}-{{ A-.output }}", **{"_a": 1, "A-": 2}) == "1-2"


@given(VALUES)
def test_a_whole_text_keeps_the_type_of_its_value(value: Any) -> None:
    rendered = render("{{ a.output.x }}", a={"x": value})
    assert rendered == value
    assert type(rendered) is type(value)


@given(VALUES)
def test_inside_text_texts_stand_as_they_are_and_all_else_as_json(value: Any) -> None:
    rendered = render("<{{ a.output }}>", a=value)
    assert rendered[0] + rendered[-1] == "<>"
    if isinstance(value, str):
        assert rendered[1:-1] == value
    else:
        assert json.loads(rendered[1:-1]) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        (True, "true"),
        (None, "null"),
        (3, "3"),
        (0.5, "0.5"),
        ([1, "é"], '[1,"é"]'),
        ({"a": {"b": []}}, '{"a":{"b":[]}}'),
    ],
)
def test_values_inside_text(value: Any, text: str) -> None:
    assert render(" {{ a.output }}", a=value) == f" {text}"
    assert render("{{ a.output }}{{ a.output }}", a=value) == text * 2


def test_templates_anywhere_in_lists_and_objects() -> None:
    config = {
        "url": "http://api/{{ input.user }}/posts?limit={{ input.limit }}",
        "body": {"items": ["{{ a.output.list }}", 1, None, {"deep": ["x {{ a.output.list[0] }} y"]}], "n": 2.5},
        "plain": ["no", {"template": True}],
        "empty": {},
    }
    scope = Scope({"user": "ada", "limit": 5}, {"a": {"list": [1, 2]}})
    assert render_config(config, scope) == {
        "url": "http://api/ada/posts?limit=5",
        "body": {"items": [[1, 2], 1, None, {"deep": ["x 1 y"]}], "n": 2.5},
        "plain": ["no", {"template": True}],
        "empty": {},
    }


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_a_configuration_without_templates_is_itself(config: dict[str, Any]) -> None:
    assume("{{" not in json.dumps(config))
    compiled, problems = compile_config(config, "config")
    assert (problems, compiled.references) == ([], ())
    assert not contains_template(config)
    assert compiled.renderer.render(Scope()) == config


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ('{{ "{{" }}', "{{"),
        ('{{ "{{" }} input.x }}', "{{ input.x }}"),
        ('a {{ "}}" }} b', "a }} b"),
        ('{{ "" }}', ""),
        ('{{ "\\u007b{" }}{{ input.x }}', "{{1"),
        ("a }} b", "a }} b"),
        ("{ { input.x } }", "{ { input.x } }"),
        ("{% raw %}{# x #}${x}%s{0}", "{% raw %}{# x #}${x}%s{0}"),
    ],
)
def test_braces(text: str, rendered: str) -> None:
    assert render(text, input={"x": 1}) == rendered


def test_each_rendering_gives_containers_of_its_own() -> None:
    config = {"list": [1, {"a": []}], "mixed": [{"b": []}, "{{ input.x }}"], "object": {}}
    for source in (config, {"list": [1]}, {}):
        compiled, _ = compile_config(source, "config")
        first = compiled.renderer.render(Scope({"x": 1}))
        untouched = json.dumps(first)
        for container in (first, *first.values()):
            container.clear()
        assert json.dumps(compiled.renderer.render(Scope({"x": 1}))) == untouched


def test_everything_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"a": "{{ input.x }} and {{ default(input.y, 3) }}", "b": ["{{ input.x }}"]}
    compiled, problems = compile_config(config, "config")
    assert problems == []

    def refuse(*_: object) -> NoReturn:
        pytest.fail("parsed a template while rendering it")

    monkeypatch.setattr(template, "parse_text", refuse)
    monkeypatch.setattr(template, "_Parser", refuse)
    for number in range(3):
        assert compiled.renderer.render(Scope({"x": number})) == {"a": f"{number} and 3", "b": [number]}


def test_references_are_listed_with_their_places() -> None:
    config = {"a": ["x", "{{ p.output[0] }} {{ input.q }}"], "b c": {"d": "{{ default(r.output, 1) }}"}}
    compiled, problems = compile_config(config, "dag.nodes[3].config")
    assert problems == []
    assert compiled.references == (
        ("dag.nodes[3].config.a[1]", Reference("p", ("output", 0))),
        ("dag.nodes[3].config.a[1]", Reference("input", ("q",))),
        ("dag.nodes[3].config['b c'].d", Reference("r", ("output",), "1")),
    )


@given(REFERENCES)
def test_a_reference_is_shown_as_it_can_be_written(reference: Reference) -> None:
    assert parse_text(f"{{{{ {reference} }}}}") == [reference]


@given(st.lists(REFERENCES | TEXTS.filter(lambda text: text and "{" not in text), max_size=6))
def test_text_and_references_alternate_as_written(parts: list[str | Reference]) -> None:
    written = "".join(part if isinstance(part, str) else f"{{{{{part}}}}}" for part in parts)
    joined: list[str | Reference] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    assert parse_text(written) == joined


# --- defaults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ('"text"', "text"),
        ("0", 0),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ("[]", []),
        ('{"a": [1, {"b": "}} {{ x"}]}', {"a": [1, {"b": "}} {{ x"}]}),
    ],
)
def test_a_default_stands_for_what_is_missing(literal: str, value: Any) -> None:
    for missing in ("input.missing", "a.output.x.y", "a.output.list[9]", 'a.output["x y"]'):
        text = f"{{{{ default({missing}, {literal}) }}}}"
        assert render(text, a={"x": 1, "list": []}, input={}) == value
    rendered = render(f"<{{{{default( input.missing ,{literal} )}}}}>")
    assert rendered == f"<{value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}>"


def test_a_default_does_not_replace_what_is_there() -> None:
    values: list[Any] = [None, False, 0, "", [], {}]
    for value in values:
        assert render("{{ default(input.x, 9) }}", input={"x": value}) == value


def test_a_default_is_a_fresh_value_each_time() -> None:
    compiled, _ = compile_config({"a": "{{ default(input.x, [1]) }}"}, "config")
    compiled.renderer.render(Scope())["a"].append(2)
    assert compiled.renderer.render(Scope()) == {"a": [1]}


def test_default_is_a_word_like_others() -> None:
    assert render("{{ default.output }} {{ input.default }}", default=1, input={"default": 2}) == "1 2"
    assert render("{{ default(default.output.x, 3) }}", default={}) == 3


# --- a node called input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ input.output }}", {"x": 1}),
        ("{{ input.output.x }}", 1),
        ('{{ input["output"].x }}', 1),
        ("{{ input.y }}", 2),
        ("{{ input }}", {"y": 2}),
        ("{{ default(input.output.z, 5) }}", 5),
    ],
)
def test_the_output_of_a_node_called_input(text: str, value: Any) -> None:
    scope = Scope({"y": 2}, {"input": {"x": 1}})
    assert render_config({"v": text}, scope) == {"v": value}


def test_a_parameter_called_output_comes_first() -> None:
    scope = Scope({"output": {"x": "parameter"}}, {"input": {"x": "node"}})
    assert render_config({"v": "{{ input.output.x }}"}, scope) == {"v": "parameter"}
    scope = Scope({"output": None}, {"input": {"x": "node"}})
    assert render_config({"v": "{{ input.output }}"}, scope) == {"v": None}


def test_without_a_node_called_input_above_its_output_is_a_parameter() -> None:
    assert failure("{{ input.output.x }}", input={"a": 1}) == (
        "config.value: template '{{ input.output.x }}': 'input' has no key 'output'; it is an object with the keys 'a'"
    )


# --- what is missing at run time ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ input.q }}", "'input' has no key 'q'; it is an object with the keys 'a'"),
        ("{{ n.output.user.mail }}", "'n.output.user' has no key 'mail'; it is an object with the keys 'id', 'b c'"),
        ('{{ n.output.user["b c"].d }}', "'n.output.user[\"b c\"]' has no key 'd'; it is null"),
        ("{{ n.output.list[2] }}", "'n.output.list' has no item 2; it is a list of 2 items"),
        ("{{ n.output.list.x }}", "'n.output.list' has no key 'x'; it is a list of 2 items"),
        ("{{ n.output.list[0].x }}", "'n.output.list[0]' has no key 'x'; it is true"),
        ("{{ n.output.user[0] }}", "'n.output.user' has no item 0; it is an object with the keys 'id', 'b c'"),
        ("{{ n.output.user.id[0] }}", "'n.output.user.id' has no item 0; it is the number 12"),
        ("{{ n.output.text[0] }}", "'n.output.text' has no item 0; it is the text 'hello'"),
        ("{{ n.output.text.upper }}", "'n.output.text' has no key 'upper'; it is the text 'hello'"),
        ("{{ n.output.empty.x }}", "'n.output.empty' has no key 'x'; it is an empty object"),
    ],
)
def test_a_missing_path_is_named_with_what_is_there_instead(text: str, message: str) -> None:
    output = {"user": {"id": 12, "b c": None}, "list": [True, 2], "text": "hello", "empty": {}}
    assert failure(text, n=output, input={"a": 1}) == f"config.value: template '{text}': {message}"
    assert failure(f"in text {text}", n=output, input={"a": 1}) == f"config.value: template '{text}': {message}"


def test_the_message_of_a_missing_path_stays_short() -> None:
    many = {f"key{number}" * 100: number for number in range(1_000)}
    message = failure("{{ a.output.x }}", a=many)
    assert message.endswith("... and 990 more")
    assert len(message) < 2_000
    assert len(failure("{{ a.output.x }}", a="y" * 10**6)) < 300
    assert len(failure("{{ a.output.x }}", a=10**3_000)) < 300


# --- attacks (F29) --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        '{{ "".__class__ }}',
        "{{ a.output.__class__() }}",
        "{{ range(10**9) }}",
        "{{ a.output * 1000000000 }}",
        "{{ 9**9**9 }}",
        "{{ a.output|attr('x') }}",
        "{{ a.output[a.output] }}",
        "{{ a.output['x'] }}",
        "{{ a.output[-1] }}",
        "{{ a.output[1:2] }}",
        "{{ a.output[1.0] }}",
        "{{ a.output[9999999999] }}",
        "{{ a.output if true else 1 }}",
        "{{ lambda: 1 }}",
        "{{ {{ a.output }} }}",
        "{{ {{ }} }}",
        "{{{ a.output }}}",
        "{{ self }} {{ }}",
        "{{}}",
        "{{ }}",
        "{{",
        "{{ a.output",
        "{{ a.output }",
        "{{ a.output } }",
        "{{ a..output }}",
        "{{ a. }}",
        "{{ .a }}",
        "{{ a .output }}",
        "{{ a.0 }}",
        "{{ 0 }}",
        "{{ a b }}",
        "{{ a,b }}",
        "{{ a.output[] }}",
        '{{ a.output["x }}',
        '{{ a.output["x" }}',
        '{{ a.output["\\x"] }}',
        '{{ a.output["\n"] }}',
        "{{ default(a.output) }}",
        "{{ default(a.output, ) }}",
        "{{ default(a.output, x) }}",
        "{{ default(a.output, b.output) }}",
        "{{ default(a.output, 1, 2) }}",
        "{{ default(a.output, 1 }}",
        "{{ default('x', 1) }}",
        "{{ default(default(a.output, 1), 1) }}",
        "{{ default(a.output, NaN) }}",
        "{{ default(a.output, -Infinity) }}",
        "{{ default(a.output, 1e999) }}",
        '{{ default(a.output, "\\ud800") }}',
        '{{ default(a.output, {"a": 1, "a": 2}) }}',
        "{{ default(a.output, " + "9" * 1_000 + "e" + "9" * 10 + ") }}",
        "{{ default(a.output, " + "[" * 500 + "]" * 500 + ") }}",
        "{{ default(a.output, " + "[" * 65 + "1" + "]" * 65 + ") }}",
        '{{ "\\ud800" }}',
        "{{ é.output }}",
        "{{ a.é }}",
        "{{ a\u200b.output }}",
        "{{ \x00 }}",
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    (problem,) = problems_of({"v": ["ok", text]})
    assert problem.path == "config.v[1]"
    assert problem.message.startswith("template syntax: ")
    assert problem.message.isprintable()
    assert len(problem.message) < 400
    with pytest.raises(TemplateSyntaxError):
        parse_text(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ }}", "template syntax: expected a node id or 'input' at character 3 of '{{ }}'"),
        (
            "ab {{ x",
            "template syntax: expected '}}' (a template is a reference or default(reference, value), nothing more) "
            "at character 7 of '{{ x'",
        ),
        (
            "{{ x. }}",
            "template syntax: expected a name after '.'; write other keys as [\"key\"] and items as [0] "
            "at character 5 of '{{ x. }}'",
        ),
        (
            "{{ default(x.output) }}",
            "template syntax: expected ', value' in default(reference, value) "
            "at character 19 of '{{ default(x.output) }}'",
        ),
    ],
)
def test_a_syntax_error_shows_where(text: str, message: str) -> None:
    assert problems_of({"v": text}) == [Problem("config.v", message)]


def test_all_problems_of_a_configuration_are_reported_at_once() -> None:
    config = {"a": "{{ }}", "b": {"c": ["{{ x", "fine", "{{ y.output }}"]}, "{{ k }}": 1, "d": "{{ 1 }}"}
    problems = problems_of(config)
    assert sorted(problem.path for problem in problems) == ["config", "config.a", "config.b.c[0]", "config.d"]


@pytest.mark.parametrize(
    "config",
    [
        {"{{ x }}": 1},
        {"a": {"{{ x }}": 1}},
        {"a": [{"b": {"x {{ y }}": "{{ input.z }}"}}]},
    ],
)
def test_keys_may_not_hold_templates(config: dict[str, Any]) -> None:
    (problem,) = problems_of(config)
    assert "only values may" in problem.message


@pytest.mark.parametrize("name", ["__class__", "__dict__", "format", "keys", "items", "__getattribute__", "__init__"])
@pytest.mark.parametrize("value", [{}, [], "x", 1, 1.5, None, True], ids=repr)
def test_python_attributes_are_only_keys_that_are_not_there(name: str, value: Any) -> None:
    assert f"'a.output' has no key '{name}'" in failure(f"{{{{ a.output.{name} }}}}", a=value)
    assert render(f"{{{{ a.output.{name} }}}}", a={name: "just data"}) == "just data"


HOSTILE = "{{ input.secret }} {0.__class__} %(x)s {{ '' }} $x {% x %} \\u007b{{"


def test_values_are_never_evaluated() -> None:
    given = {"secret": "s3cret", "hostile": HOSTILE}
    assert render("{{ input.hostile }}", input=given) == HOSTILE
    assert render("<{{ input.hostile }}>", input=given) == f"<{HOSTILE}>"
    assert render("{{ input.hostile }}{{ input.hostile }}", input=given) == HOSTILE * 2
    assert render("{{ default(input.x, " + json.dumps(HOSTILE) + ") }}", input=given) == HOSTILE
    assert render("{{ " + json.dumps("{{ input.secret }}") + " }}", input=given) == "{{ input.secret }}"


def test_what_was_rendered_is_not_evaluated_by_putting_it_together() -> None:
    """No template comes into being out of two halves."""
    assert render("{{ input.a }}{ input.secret }}", input={"a": "{", "secret": "s"}) == "{{ input.secret }}"
    assert render('{{ "{" }}{ input.secret }}', input={"secret": "s"}) == "{{ input.secret }}"


def test_a_value_can_be_handed_on_many_times_without_growing() -> None:
    value: Any = "{{ input.x }}{{ input.x }}"
    for _ in range(40):
        value = render("{{ input.x }}", input={"x": value})
    assert value == "{{ input.x }}{{ input.x }}"


@settings(max_examples=300)
@given(st.text("{}\"'[](),.:\\abdefault01 \n_-", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parts = parse_text(text)
    except TemplateSyntaxError as error:
        assert "{{" in text
        assert str(error).startswith("template syntax: ")
    else:
        assert "{{" in text or parts == ([text] if text else [])


# --- bounds ---------------------------------------------------------------------------------------


def test_longest_expression() -> None:
    inside = " a" + "x" * (MAX_EXPRESSION_CHARACTERS - 4)
    assert parse_text("{{" + inside + "}}") == [Reference(inside.strip(), ())]
    with pytest.raises(TemplateSyntaxError, match=f"a template has at most {MAX_EXPRESSION_CHARACTERS} characters"):
        parse_text("{{" + inside + "x}}")
    with pytest.raises(TemplateSyntaxError):
        parse_text("{{ a" + " " * 10**6 + "}}")
    with pytest.raises(TemplateSyntaxError):
        parse_text('{{ default(a.output, "' + "x" * 10**6 + '") }}')


def test_longest_reference() -> None:
    steps = ".x" * MAX_REFERENCE_SEGMENTS
    assert parse_text("{{ a" + steps + " }}") == [Reference("a", ("x",) * MAX_REFERENCE_SEGMENTS)]
    with pytest.raises(TemplateSyntaxError, match=f"at most {MAX_REFERENCE_SEGMENTS} steps"):
        parse_text("{{ a" + steps + "[0] }}")


def test_most_templates_of_a_node() -> None:
    at_most = ["{{ input.a }}{{ input.b }}"] * (MAX_TEMPLATES_PER_NODE // 2)
    compiled, problems = compile_config({"v": at_most}, "config")
    assert problems == []
    assert len(compiled.references) == MAX_TEMPLATES_PER_NODE
    for more in ({"v": [*at_most, "{{ input.c }}"]}, {"v": "{{ input.a }}" * (MAX_TEMPLATES_PER_NODE + 1)}):
        (problem,) = problems_of(more)
        assert problem.message == f"a node has at most {MAX_TEMPLATES_PER_NODE} templates"


def test_longest_text() -> None:
    half = "x" * (MAX_RENDERED_TEXT_CHARACTERS // 2)
    assert len(render("{{ a.output }}{{ a.output }}", a=half)) == MAX_RENDERED_TEXT_CHARACTERS
    message = failure("{{ a.output }}{{ a.output }}y", a=half)
    assert message.startswith("config.value: ")
    assert f"{MAX_RENDERED_TEXT_CHARACTERS} characters" in message


def test_a_whole_value_may_be_longer_than_text() -> None:
    long = "x" * (MAX_RENDERED_TEXT_CHARACTERS + 1)
    assert render("{{ a.output }}", a=long) == long


def test_all_texts_of_a_configuration_are_bounded_together() -> None:
    """Otherwise a configuration of 20 kB would be a gigabyte when it is resolved."""
    value = "x" * (MAX_RENDERED_TEXT_CHARACTERS // 10)
    scope = Scope({}, {"a": value})
    ten = {"list": ['{{ a.output }}{{ "" }}'] * 10}
    assert sum(map(len, render_config(ten, scope)["list"])) == len(value) * 10
    with pytest.raises(TemplateFailed, match=rf"^config\.list\[10\]: .*{MAX_RENDERED_TEXT_CHARACTERS} characters"):
        render_config({"list": ['{{ a.output }}{{ "" }}'] * 11}, scope)
    compiled, _ = compile_config(ten, "config")
    for _ in range(3):
        assert len(compiled.renderer.render(scope)["list"]) == 10


def nested(depth: int, leaf: Any) -> dict[str, Any]:
    value = leaf
    for _ in range(depth):
        value = {"a": value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("leaf", [1, "{{ input.x }}"])
def test_deepest_configuration(leaf: Any) -> None:
    """The configuration itself is not one of the levels."""
    rendered = render_config(nested(MAX_JSON_DEPTH + 1, leaf), Scope({"x": 1}))
    assert rendered == nested(MAX_JSON_DEPTH + 1, 1)


@pytest.mark.parametrize("leaf", [1, {}, "{{ input.x }}", "{{ }}"])
@pytest.mark.parametrize("depth", [MAX_JSON_DEPTH + 2, 100_000])
def test_too_deep_is_one_problem_and_no_recursion(depth: int, leaf: Any) -> None:
    (problem,) = problems_of(nested(depth, leaf))
    assert problem.message == f"is nested deeper than {MAX_JSON_DEPTH} levels"
    assert problem.path.startswith("config")


class CountingText(str):
    """A text that counts how many characters are copied out of it."""

    copied = 0

    def __getitem__(self, key: Any) -> str:
        part = super().__getitem__(key)
        CountingText.copied += len(part)
        return part


@pytest.mark.parametrize("piece", ['{{ "a" }}', "{{ default(a.output, 1) }}", '{{ a["b"] }}', "{{ a.output }}", "x"])
def test_parsing_copies_no_more_than_the_text(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work grows with the text: a literal must not copy everything before it."""
    for count in (2_000, 4_000, 8_000):
        monkeypatch.setattr(CountingText, "copied", 0)
        parts = parse_text(CountingText(piece * count))
        assert len(parts) == (1 if piece == "x" else count)
        assert 0 <= CountingText.copied <= count * (MAX_EXPRESSION_CHARACTERS + len(piece))


def test_places_below_a_long_key_stay_short() -> None:
    """A place is made for each value: with a key of a megabyte that would copy a terabyte."""
    compiled, problems = compile_config({"k" * 10**6: ["{{ input.x }}", "{{ }}"]}, "config")
    assert [len(place) < 200 for place, _ in compiled.references] == [True]
    assert [len(problem.path) < 200 for problem in problems] == [True]


@pytest.mark.parametrize(
    ("value", "has"),
    [
        ("{{ x }}", True),
        ("{{", True),
        ("}}", False),
        ({"a": [1, {"b": ["x {{ y }}"]}]}, True),
        ({"a": [1, {"b": ["x", None, 2.5]}]}, False),
        ({}, False),
        (None, False),
        ({1: {2: "x"}}, False),
    ],
)
def test_contains_template(value: Any, has: bool) -> None:
    assert contains_template(value) is has

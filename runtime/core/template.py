"""Templates: `{{ node.output.path }}` in the strings of a node's configuration.

The grammar, all of it:

    text        any text with {{ expression }} in it
    expression  reference | default(reference, JSON literal) | JSON string
    reference   name, then any number of .name, [0] and ["any key"]

`{{ node.output }}` is a node's whole output, `{{ input.name }}` an input parameter of the workflow.
A template that is the whole string keeps its value's type; inside other text, text stands as it is
and everything else as JSON. `{{ "{{" }}` writes two braces. Values are data: they are never
evaluated again. There are no calls, no operators, no Python: work and length are bounded by
`limits.py`, and everything is parsed once, when the definition is compiled. A part of a
configuration that holds no template is kept as one piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from .json_text import InvalidJson, decode
from .limits import (
    MAX_EXPRESSION_CHARACTERS,
    MAX_JSON_DEPTH,
    MAX_REFERENCE_SEGMENTS,
    MAX_RENDERED_TEXT_CHARACTERS,
    MAX_TEMPLATES_PER_NODE,
)
from .problem import Problem, join_path, show

INPUT_ROOT = "input"
OUTPUT_FIELD = "output"

_OPEN = "{{"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_INDEX = re.compile(r"\[\s*(\d{1,9})\s*\]")
_KEY = re.compile(r"\[\s*(?=\")")
_SPACE = re.compile(r"\s*")
_CLOSE = re.compile(r"\s*}}")
_DEFAULT = re.compile(r"default\s*\(")


class TemplateFailed(Exception):
    """A template cannot be resolved; the message names the template, the path and what was there instead."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`root` and the keys and indexes below it. `fallback` is JSON text, or None when there is no default."""

    root: str
    path: tuple[str | int, ...]
    fallback: str | None = None

    def __str__(self) -> str:
        """As it can be written in a template."""
        return self.root + "".join(map(_write_segment, self.path))


class Scope(Protocol):
    """What templates can see while one attempt's configuration is resolved."""

    def parameters(self) -> Mapping[str, Any]:
        """The workflow's input parameters."""

    def has_output(self, node_id: str) -> bool:
        """Whether `node_id` is an ancestor of the node being resolved."""

    def output(self, node_id: str) -> Any:
        """The output of an ancestor."""


class Budget:
    """How many characters the texts of one configuration may still grow by while it is resolved."""

    __slots__ = ("characters",)

    def __init__(self) -> None:
        self.characters = MAX_RENDERED_TEXT_CHARACTERS


class Part(Protocol):
    """A part of a compiled configuration."""

    def fill(self, scope: Scope, budget: Budget) -> Any:
        """The part's value with its templates resolved. Raises `TemplateFailed`."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A part without templates. Containers are kept as JSON text, so that each attempt gets its own."""

    value: Any
    container_text: str | None

    def fill(self, scope: Scope, budget: Budget) -> Any:
        return self.value if self.container_text is None else json.loads(self.container_text)


@dataclass(frozen=True, slots=True)
class EmptyObject:
    """The configuration of a node that has none, which is the most common one."""

    def fill(self, scope: Scope, budget: Budget) -> Any:
        return {}


@dataclass(frozen=True, slots=True)
class Whole:
    """A template that is the whole string: it keeps its value's type."""

    reference: Reference
    place: str

    def fill(self, scope: Scope, budget: Budget) -> Any:
        return resolve(self.reference, scope, self.place)


@dataclass(frozen=True, slots=True)
class Text:
    """Templates inside text."""

    parts: tuple[str | Reference, ...]
    place: str

    def fill(self, scope: Scope, budget: Budget) -> str:
        texts: list[str] = []
        for part in self.parts:
            text = part if isinstance(part, str) else _as_text(resolve(part, scope, self.place))
            budget.characters -= len(text)
            if budget.characters < 0:
                raise TemplateFailed(
                    f"{self.place}: the texts with templates would be longer than "
                    f"{MAX_RENDERED_TEXT_CHARACTERS} characters together"
                )
            texts.append(text)
        return "".join(texts)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list with templates somewhere below it."""

    items: tuple[Part, ...]

    def fill(self, scope: Scope, budget: Budget) -> list[Any]:
        return [item.fill(scope, budget) for item in self.items]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object with templates somewhere below it."""

    items: tuple[tuple[str, Part], ...]

    def fill(self, scope: Scope, budget: Budget) -> dict[str, Any]:
        return {key: item.fill(scope, budget) for key, item in self.items}


@dataclass(frozen=True, slots=True)
class Renderer:
    """A compiled configuration."""

    part: Part

    def render(self, scope: Scope) -> Any:
        """The value with its templates resolved: fresh containers at each call. Raises `TemplateFailed`."""
        return self.part.fill(scope, Budget())


@dataclass(frozen=True, slots=True)
class CompiledConfig:
    """A node's configuration, ready to be resolved, and every reference in it with its place."""

    renderer: Renderer
    references: tuple[tuple[str, Reference], ...]


def resolve(reference: Reference, scope: Scope, place: str) -> Any:
    """The value a reference stands for in `scope`, or its default. Raises `TemplateFailed`."""
    try:
        if reference.root != INPUT_ROOT:
            return _walk(scope.output(reference.root), reference, 1)
        parameters = scope.parameters()
        if _means_node_called_input(reference, parameters, scope):
            return _walk(scope.output(INPUT_ROOT), reference, 1)
        return _walk(parameters, reference, 0)
    except LookupError as missing:
        if reference.fallback is not None:
            return json.loads(reference.fallback)
        raise TemplateFailed(f"{place}: template '{{{{ {reference} }}}}': {missing.args[0]}") from None


def _means_node_called_input(reference: Reference, parameters: Mapping[str, Any], scope: Scope) -> bool:
    """`{{ input.output }}` is the output of a node called `input`, unless a parameter is called `output`."""
    return reference.path[:1] == (OUTPUT_FIELD,) and OUTPUT_FIELD not in parameters and scope.has_output(INPUT_ROOT)


def _walk(value: Any, reference: Reference, start: int) -> Any:
    for position in range(start, len(reference.path)):
        segment = reference.path[position]
        if isinstance(segment, int):
            if isinstance(value, list) and segment < len(value):
                value = value[segment]
                continue
        elif isinstance(value, dict) and segment in value:
            value = value[segment]
            continue
        parent = Reference(reference.root, reference.path[:position])
        raise LookupError(f"'{parent}' has no {_describe_segment(segment)}; it is {_describe(value)}")
    return value


def _write_segment(segment: str | int) -> str:
    if isinstance(segment, int):
        return f"[{segment}]"
    return f".{segment}" if _NAME.fullmatch(segment) else f"[{json.dumps(segment)}]"


def _describe_segment(segment: str | int) -> str:
    return f"item {segment}" if isinstance(segment, int) else f"key {show(segment)}"


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        if not value:
            return "an empty object"
        keys = ", ".join(show(key) for key in list(value)[:10])
        return f"an object with the keys {keys}" + (f" and {len(value) - 10} more" if len(value) > 10 else "")
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    return f"the {'text' if isinstance(value, str) else 'number'} {show(value)}"


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def contains_template(value: Any) -> bool:
    """Whether any string at or below `value` has a template in it."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if _OPEN in item:
                return True
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def compile_config(config: Mapping[str, Any] | str, place: str) -> tuple[CompiledConfig, list[Problem]]:
    """Parse every template of a configuration. `place` is its path, as in `dag.nodes[3].config`."""
    compiler = _Compiler(place)
    part = compiler.compile(config, None, 0)
    if part is None:
        part = _constant({} if compiler.problems else config)
    return CompiledConfig(Renderer(part), tuple(compiler.references)), compiler.problems


def _constant(value: Any) -> Constant | EmptyObject:
    if value == {}:
        return EmptyObject()
    if isinstance(value, (dict, list)):
        return Constant(None, json.dumps(value, separators=(",", ":")))
    return Constant(value, None)


class _Compiler:
    """Compiles one configuration. A `place` below it is a chain of (the place above, key or index), or None."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.references: list[tuple[str, Reference]] = []
        self.problems: list[Problem] = []

    def compile(self, value: Any, place: Any, depth: int) -> Part | None:
        """The part that stands for `value`; None when there is no template in it."""
        if isinstance(value, str):
            return self.compile_text(value, place) if _OPEN in value else None
        if not isinstance(value, (dict, list)):
            return None
        if depth > MAX_JSON_DEPTH:
            self.report(place, f"is nested deeper than {MAX_JSON_DEPTH} levels")
            return None
        if isinstance(value, list):
            items = [self.compile(item, (place, index), depth + 1) for index, item in enumerate(value)]
            if not any(items):
                return None
            return ListOf(tuple(part or _constant(item) for part, item in zip(items, value, strict=True)))
        parts = {key: self.compile_entry(key, item, place, depth + 1) for key, item in value.items()}
        if not any(parts.values()):
            return None
        return ObjectOf(tuple((key, part or _constant(value[key])) for key, part in parts.items()))

    def compile_entry(self, key: str, item: Any, place: Any, depth: int) -> Part | None:
        if isinstance(key, str) and _OPEN in key:
            self.report(place, f"the key {show(key)} has a template; only values may")
        return self.compile(item, (place, key), depth)

    def compile_text(self, text: str, place: Any) -> Part | None:
        try:
            parts = parse_text(text)
        except TemplateSyntaxError as error:
            self.report(place, str(error))
            return None
        found = [part for part in parts if isinstance(part, Reference)]
        if len(self.references) + len(found) > MAX_TEMPLATES_PER_NODE:
            self.report(place, f"a node has at most {MAX_TEMPLATES_PER_NODE} templates")
            return None
        path = self.path_of(place)
        self.references.extend((path, reference) for reference in found)
        if len(parts) == 1 and isinstance(parts[0], Reference):
            return Whole(parts[0], path)
        return Text(tuple(parts), path)

    def report(self, place: Any, message: str) -> None:
        self.problems.append(Problem(self.path_of(place), message))

    def path_of(self, place: Any) -> str:
        segments: list[str | int] = []
        while place is not None:
            place, segment = place
            segments.append(segment)
        return join_path(self.base, reversed(segments))


class TemplateSyntaxError(InvalidJson):
    """A template does not follow the grammar; the message shows where."""


def parse_text(text: str) -> list[str | Reference]:
    """The text split into literal parts and references. Raises `TemplateSyntaxError`."""
    parts: list[str | Reference] = []
    position = 0
    while True:
        start = text.find(_OPEN, position)
        if start < 0:
            break
        if start > position:
            parts.append(text[position:start])
        part, position = _Parser(text, start + len(_OPEN)).expression()
        parts.append(part)
    if position < len(text):
        parts.append(text[position:])
    return parts


class _Parser:
    """Parses one expression, from behind `{{` to behind `}}`."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.start = start
        self.end = min(len(text), start + MAX_EXPRESSION_CHARACTERS)
        self.position = start

    def expression(self) -> tuple[str | Reference, int]:
        self.skip_space()
        part: str | Reference
        if self.text.startswith('"', self.position):
            part = self.string()
        elif self.match(_DEFAULT):
            part = self.default()
        else:
            part = self.reference()
        if not self.match(_CLOSE):
            self.fail("expected '}}' (a template is a reference or default(reference, value), nothing more)")
        return part, self.position

    def default(self) -> Reference:
        self.skip_space()
        reference = self.reference()
        self.expect(",", "expected ', value' in default(reference, value)")
        self.skip_space()
        fallback = self.json_value()
        self.expect(")", "expected ')' after default(reference, value")
        return Reference(reference.root, reference.path, json.dumps(fallback))

    def reference(self) -> Reference:
        root = self.match(_NAME)
        if not root:
            self.fail("expected a node id or 'input'")
        path: list[str | int] = []
        while True:
            if self.text.startswith(".", self.position):
                self.position += 1
                name = self.match(_NAME)
                if not name:
                    self.fail("expected a name after '.'; write other keys as [\"key\"] and items as [0]")
                path.append(name)
            elif index := self.match(_INDEX):
                path.append(int(index.strip("[] \t\r\n")))
            elif self.match(_KEY):
                path.append(self.string())
                self.expect("]", "expected ']'")
            else:
                break
        if len(path) > MAX_REFERENCE_SEGMENTS:
            self.fail(f"a reference has at most {MAX_REFERENCE_SEGMENTS} steps")
        return Reference(root, tuple(path))

    def string(self) -> str:
        value = self.json_value()
        if not isinstance(value, str):
            self.fail("expected a text in double quotes")
        return value

    def json_value(self) -> Any:
        source = self.text[self.position : self.end]
        try:
            _, length = _LITERAL.raw_decode(source)
            value = decode(source[:length].encode())
        except InvalidJson as error:
            self.fail(f"the JSON value cannot be used: {error}")
        except (ValueError, RecursionError):
            self.fail('expected a JSON value such as "text", 0, true, null, [] or {}')
        self.position += length
        return value

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position, self.end)
        if found is None:
            return ""
        self.position = found.end()
        return found.group()

    def expect(self, word: str, message: str) -> None:
        self.skip_space()
        if not self.text.startswith(word, self.position):
            self.fail(message)
        self.position += len(word)

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.position)
        if found is not None:
            self.position = found.end()

    def fail(self, message: str) -> NoReturn:
        if self.position + len("}}") > self.end == self.start + MAX_EXPRESSION_CHARACTERS:
            message = f"a template has at most {MAX_EXPRESSION_CHARACTERS} characters"
        excerpt = show(self.text[self.start - len(_OPEN) : self.position + 20])
        raise TemplateSyntaxError(f"template syntax: {message} at character {self.position} of {excerpt}")


_LITERAL = json.JSONDecoder()

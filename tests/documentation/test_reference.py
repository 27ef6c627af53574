"""The reference has everything that the code has, and nothing that it has not."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reference_pages import PARTS, commands, endpoints, fill
from reference_pages.attempt_errors import ATTEMPT_ERRORS
from reference_pages.errors import REMEDIES, entries

from workflow_engine.config import Settings
from workflow_engine.config.families import FAMILIES
from workflow_engine.config.tables import setting_groups
from workflow_engine.runtime.api.app import build_app
from workflow_engine.runtime.api.openapi import errors_of
from workflow_engine.runtime.api.options import ApiOptions, HealthSources
from workflow_engine.runtime.core.limits import MAX_NODES
from workflow_engine.runtime.core.state import NodeState, WorkflowState

ROOT = Path(__file__).parents[2]
PAGES = {page.relative_to(ROOT / "docs").as_posix(): page for page in (ROOT / "docs").rglob("*.md")}


def page(name: str) -> str:
    """A page as it is built: with its generated parts."""
    return fill(PAGES[name].read_text("utf-8"))


def prose() -> Iterator[tuple[str, str]]:
    """Every document that people read, with its name."""
    for name in PAGES:
        yield name, page(name)
    for name in ("README.md", "CONTRIBUTING.md", "DESIGN.md"):
        yield name, (ROOT / name).read_text("utf-8")


def test_every_generated_part_stands_on_a_page() -> None:
    wanted = [
        name for text in PAGES.values() for name in re.findall(r"<!-- generated: ([a-z-]+) -->", text.read_text())
    ]

    assert sorted(wanted) == sorted(PARTS)


def test_a_part_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        fill("<!-- generated: nothing -->")


# --- variables ---------------------------------------------------------------------------------------


def variables() -> set[str]:
    families = {field for family in FAMILIES for field in (family.field,)}
    own = {name.upper() for name in Settings.model_fields if name not in families}
    return own | {family.prefix + suffix for family in FAMILIES for suffix in (*family.defaults, "<HANDLER>")}


def test_every_variable_is_in_the_reference() -> None:
    rows = set(re.findall(r"^\| `([A-Z_<>]+)` \|", page("reference/variables.md"), re.MULTILINE))

    assert rows == variables()
    assert len(rows) == sum(len(group.rows) for group in setting_groups())


def test_no_document_names_a_variable_that_does_not_exist() -> None:
    known = variables()
    prefixes = {name.partition("_")[0] for name in known if "_" in name}
    shown = re.compile(rf"\b(?:{'|'.join(sorted(prefixes))})_[A-Z_]+\b")
    unknown = [
        (document, name)
        for document, text in prose()
        if document != "reference/limits.md"
        for name in shown.findall(text)
        if name not in known and not any(each.startswith(name) for each in known) and name not in _OTHER_NAMES
    ]

    assert unknown == []


# Constants and header names that look like variables.
_OTHER_NAMES = {name for name in re.findall(r"MAX_[A-Z_]+", (ROOT / "runtime/core/limits.py").read_text("utf-8"))}


# --- problems ----------------------------------------------------------------------------------------


def codes_in_the_code() -> set[str]:
    """Every `code = "..."` of an error class, read from the files."""
    found = set()
    for file in (ROOT / "runtime").rglob("*.py"):
        for match in re.findall(
            r'^    code(?:: ClassVar\[str\])? = "([a-z-]+)"$', file.read_text("utf-8"), re.MULTILINE
        ):
            found.add(match)
    return found


def test_every_problem_is_in_the_reference_with_a_remedy() -> None:
    shown = set(re.findall(r"^\(problem-([a-z-]+)\)=$", page("reference/problems.md"), re.MULTILINE))

    assert shown == {entry.code for entry in entries()} == set(REMEDIES)
    assert codes_in_the_code() - shown <= {"unavailable"}, "only a branch that is never raised itself is left out"


def test_no_document_names_a_problem_that_does_not_exist() -> None:
    named = {
        (document, code)
        for document, text in prose()
        for code in re.findall(r"urn:workflow-engine:problem:([a-z-]+)", text)
    }

    assert {code for _, code in named} >= set(REMEDIES) - {entry.code for entry in entries() if entry.status is None}
    assert [each for each in named if each[1] not in REMEDIES] == []


def error_types_in_the_code() -> set[str]:
    """The names that handlers, the worker and the owner give to failures, read from the files."""
    found = set()
    for folder in ("handlers", "runtime/worker", "runtime/orchestrator"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                named = [word.value for word in node.keywords if word.arg == "error_type"]
                if isinstance(node.func, ast.Name) and node.func.id == "AttemptError":
                    named += node.args[:1]
                found |= {
                    each.value for each in named if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return found


def test_every_error_of_an_attempt_is_in_the_reference() -> None:
    chosen_elsewhere = {"output_invalid", "output_too_large"}

    assert error_types_in_the_code() | chosen_elsewhere == set(ATTEMPT_ERRORS)
    assert all(f"| `{name}` |" in page("reference/attempt-errors.md") for name in ATTEMPT_ERRORS)
    assert all(f'"{name}"' in (ROOT / "runtime/worker/failure.py").read_text("utf-8") for name in chosen_elsewhere)


# --- commands ----------------------------------------------------------------------------------------


def test_every_command_and_option_is_in_the_reference() -> None:
    text = page("reference/commands.md")
    found = list(commands.commands())

    assert len(found) > 2
    for name, _, parser in found:
        section = re.split(r"^##", text.partition(f"# {name}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        assert section, name
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            for spelled in action.option_strings or [str(action.metavar or action.dest)]:
                assert spelled in section, f"{name}: {spelled}"


def test_every_command_line_of_the_documents_can_be_parsed() -> None:
    parser = commands.build_parser()
    lines = [
        (document, line.removesuffix("\\"))
        for document, text in prose()
        for line in re.findall(r"^ *(?:[A-Z_]+=\S+ )*workflow-engine ([a-z][^\n|>&#)]*)", text, re.MULTILINE)
        if not document.startswith("reference/")
    ]

    assert len(lines) > 5
    for document, line in lines:
        try:
            parser.parse_args(shlex.split(line))
        except SystemExit:
            pytest.fail(f"{document}: workflow-engine {line}")


def test_no_document_names_a_command_that_does_not_exist() -> None:
    known = {name for name, _, _ in commands.commands()}
    named = [
        (document, word)
        for document, text in prose()
        for word in re.findall(r"`workflow-engine ([a-z][a-z-]*)", text)
        if f"workflow-engine {word}" not in known
    ]

    assert named == []


# --- endpoints ---------------------------------------------------------------------------------------


def served() -> set[tuple[str, str]]:
    """(method, path) of everything that the application answers, as aiohttp has it."""
    nothing: Any = None
    sources = HealthSources(
        store=nothing, accepting=nothing, read_checkpoints=nothing, checkpoint_timeout_seconds=nothing
    )
    app = build_app(nothing, health=sources, clock=nothing, version="1", options=ApiOptions())
    return {
        (route.method, resource.canonical)
        for route in app.router.routes()
        if (resource := route.resource) is not None and route.method not in ("HEAD", "OPTIONS")
    }


def documented_endpoints() -> dict[tuple[str, str], str]:
    """The sections of the page by (method, path)."""
    sections = re.split(r"^### (?=GET |POST |DELETE )", page("reference/endpoints.md"), flags=re.MULTILINE)[1:]
    return {(head.split()[0], head.split()[1]): text for head, _, text in (each.partition("\n") for each in sections)}


def test_every_endpoint_is_in_the_reference() -> None:
    pages_for_browsers = {each for each in served() if each[1].startswith(("/docs", "/redoc"))}

    assert len(pages_for_browsers) >= 2
    assert set(documented_endpoints()) == served() - pages_for_browsers
    assert all(f"`{path}`" in page("reference/endpoints.md") for path in ("/docs", "/redoc"))


def test_every_endpoint_tells_its_scope_parameters_answers_and_problems() -> None:
    sections = documented_endpoints()

    for route, operation in endpoints.endpoints():
        text = sections[(route.method, route.path)]
        wanted = [f"Scope: `{route.scope}`."]
        wanted += [f"| `{parameter['name']}` | {parameter['in']} |" for parameter in operation["parameters"]]
        wanted += [f"| {status} |" for status in route.answers]
        wanted += [f"#problem-{error.code})" for error in errors_of(route)]
        wanted += ["Body: "] * (route.body is not None)
        assert [each for each in wanted if each not in text] == [], route.operation


def test_every_object_of_the_api_is_in_the_reference() -> None:
    schemas = endpoints.document()["components"]["schemas"]
    text = page("reference/endpoints.md")

    assert len(schemas) > 10
    assert [name for name in schemas if f"### {name}\n" not in text] == []


def test_no_document_names_an_endpoint_that_does_not_exist() -> None:
    patterns = [re.sub(r"{\w+}", r"[^/]+", path) for _, path in served()]
    patterns.append("/v1/plugins/.*")  # below it is what plugins add
    shown = re.compile(
        r"(?<![\w.])(?:http://localhost:8000)?(/(?:v1/[a-z]|livez|readyz|docs|redoc|openapi)[^\s`\"'?|)]*)"
    )
    named = [
        (document, path.rstrip(".,:;"))
        for document, text in prose()
        for path in shown.findall(text)
        if not document.startswith("internals/") and "[^" not in path
    ]

    assert len({path for _, path in named}) > 20
    assert [each for each in named if not any(re.fullmatch(pattern, each[1]) for pattern in patterns)] == []


# --- states, limits, grammar ----------------------------------------------------------------------------


def test_the_states_the_limits_and_the_grammar_are_in_the_reference() -> None:
    states = page("reference/states.md")

    assert all(f"`{state}`\n: " in states for state in (*WorkflowState, *NodeState))
    assert f"| `MAX_NODES` | {MAX_NODES:,} |" in page("reference/limits.md")
    assert "expression  reference | default(reference, JSON literal) | JSON string" in page("reference/templates.md")

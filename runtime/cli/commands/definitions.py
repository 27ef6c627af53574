"""`workflow-engine definitions`: what is stored, by name and version."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..options import add_file, add_page, add_server, count, text

if TYPE_CHECKING:
    from ..options import Commands

COLUMNS = ("definition", "version", "created")


def register(commands: Commands) -> None:
    """Add the command."""
    group = commands.add_parser("definitions", help="list, show, compare and store definitions")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog=group.prog)
    listing = verbs.add_parser("list", help="the latest version of each definition")
    add_page(listing)
    listing.set_defaults(execute=list_definitions)
    show = verbs.add_parser("show", help="one definition, as it was submitted")
    _add_name(show)
    show.add_argument("--version", type=count, dest="definition_version", metavar="N", help="its version (the latest)")
    show.set_defaults(execute=show_definition)
    versions = verbs.add_parser("versions", help="the versions of a definition, newest first")
    _add_name(versions)
    add_page(versions)
    versions.set_defaults(execute=list_versions)
    diff = verbs.add_parser("diff", help="how two versions of a definition differ")
    _add_name(diff)
    diff.add_argument("from_version", type=count, metavar="FROM", help="the version to compare with")
    diff.add_argument("to_version", type=count, metavar="TO", help="the version to compare")
    diff.set_defaults(execute=show_diff)
    add = verbs.add_parser("add", help="store a workflow file without an execution")
    add_file(add)
    add.set_defaults(execute=add_definition)
    for verb in (listing, show, versions, diff, add):
        add_server(verb)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=text, metavar="NAME", help="the definition's name")


def list_definitions(options: argparse.Namespace) -> int:
    """Print the latest version of each name."""
    return _show_list("/v1/definitions", options)


def list_versions(options: argparse.Namespace) -> int:
    """Print the versions of one name."""
    from ..server import in_path

    return _show_list(f"/v1/definitions/{in_path(options.name)}/versions", options)


def _show_list(path: str, options: argparse.Namespace) -> int:
    from ..pages import read_pages, show_page
    from ..server import server_of
    from ..tables import moment

    page = read_pages(server_of(options), path, options)
    rows = ((item["name"], item["version"], moment(item["created_at"])) for item in page["items"])
    return show_page(page, COLUMNS, rows, as_json=options.json, whole=("version", "created"))


def show_definition(options: argparse.Namespace) -> int:
    """Print the definition itself; with `--json`, what is known of it too."""
    from ..server import in_path, server_of
    from ..terminal import print_json

    query = {} if options.definition_version is None else {"version": options.definition_version}
    found = server_of(options).get(f"/v1/definitions/{in_path(options.name)}", query)
    print_json(found if options.json else found["definition"])
    return 0


def show_diff(options: argparse.Namespace) -> int:
    """Print one line for each difference."""
    from ...core.problem import printable
    from ..server import in_path, server_of
    from ..terminal import print_json

    query = {"from": options.from_version, "to": options.to_version}
    diff = server_of(options).get(f"/v1/definitions/{in_path(options.name)}/diff", query)
    if options.json:
        print_json(diff)
        return 0
    for line in _diff_lines(diff):
        print(printable(line))
    return 0


def _diff_lines(diff: Mapping[str, Any]) -> Iterator[str]:
    for change in diff["changes"]:
        yield _change(change)
    for node_id in diff["removed_nodes"]:
        yield f"- node {node_id}"
    for node_id in diff["added_nodes"]:
        yield f"+ node {node_id}"
    for node in diff["changed_nodes"]:
        for change in node["changes"]:
            yield f"{_change(change)}  (node {node['id']})"


def _change(change: Mapping[str, Any]) -> str:
    import json

    old, new = (json.dumps(change[side], ensure_ascii=False) if side in change else "" for side in ("old", "new"))
    if not old or not new:
        return f"{'+' if new else '-'} {change['path']}: {new or old}"
    return f"~ {change['path']}: {old} -> {new}"


def add_definition(options: argparse.Namespace) -> int:
    """Store the definition; prints its name and version."""
    from ...core.problem import printable
    from ..errors import CommandError
    from ..files import locate, read_definition
    from ..server import server_of
    from ..terminal import print_json

    server = server_of(options)
    file = read_definition(options.file)
    try:
        stored = server.post("/v1/definitions", file.text)
    except CommandError as error:
        if not error.problems:
            raise
        raise locate(error, file) from None
    if options.json:
        print_json(stored)
    else:
        print(printable(f"{stored['name']} version {stored['version']}"))
    return 0

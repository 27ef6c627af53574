"""`workflow-engine dead-letters`: what failed and that nobody has dealt with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..options import add_conditions, add_id, add_page, add_server, add_wait, filters, text

if TYPE_CHECKING:
    from ..http_client import HttpClient
    from ..options import Commands

PATH = "/v1/dead-letters"
AT_ONCE = 100
"""How many one request deals with: it should not take long."""
COLUMNS = ("execution", "definition", "node", "error", "created")
ATTEMPT_COLUMNS = ("node", "attempt", "state", "started", "finished", "error")


def register(commands: Commands) -> None:
    """Add the command."""
    group = commands.add_parser(
        "dead-letters",
        help="list, show, requeue and discard what has failed",
        description="Executions that FAILED, until they are requeued or discarded.",
    )
    verbs = group.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog=group.prog)
    listing = verbs.add_parser("list", help="dead letters, newest first")
    _add_filter(listing)
    add_page(listing)
    listing.set_defaults(execute=list_letters)
    show = verbs.add_parser("show", help="what failed, and every attempt, the last one first")
    add_id(show)
    add_page(show)
    show.set_defaults(execute=show_letter)
    requeue = verbs.add_parser(
        "requeue",
        help="go on in a new execution, with the same inputs; what has completed is kept",
        description="Requeue the dead letter ID and print the id of the new execution; without it, requeue every one "
        "that meets the filter.",
    )
    requeue.set_defaults(execute=requeue_letters)
    discard = verbs.add_parser(
        "discard",
        help="be done with one, or with all that meet a filter",
        description="Discard the dead letter ID; without it, every one that meets the filter.",
    )
    discard.set_defaults(execute=discard_letters)
    for verb in (requeue, discard):
        verb.add_argument("id", type=text, metavar="ID", nargs="?", help="the execution's id")
        _add_filter(verb)
        verb.add_argument("--all", action="store_true", help="every dead letter, when there is no other filter")
        verb.add_argument("--yes", action="store_true", help="do not ask before going by filter")
    add_wait(requeue)
    for verb in (listing, show, requeue, discard):
        add_server(verb)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--error-type", type=text, metavar="TYPE", help="only of this type of error, such as timeout, exactly"
    )
    add_conditions(parser)


def _filter(options: argparse.Namespace) -> dict[str, object]:
    """What was given of the options of `_add_filter`, by the API's names."""
    wanted = filters(options)
    return wanted if options.error_type is None else {"error_type": options.error_type, **wanted}


def list_letters(options: argparse.Namespace) -> int:
    """Print the dead letters that meet the filter."""
    from ..pages import read_pages, show_page
    from ..server import server_of
    from ..tables import moment

    page = read_pages(server_of(options), PATH, options, _filter(options))
    rows = (
        (
            item["id"],
            f"{item['name']} v{item['version']}",
            item["error"]["node_id"],
            item["error"]["type"],
            moment(item["created_at"]),
        )
        for item in page["items"]
    )
    return show_page(page, COLUMNS, rows, as_json=options.json, whole=("execution", "created"))


def show_letter(options: argparse.Namespace) -> int:
    """Print the execution, its error, and its attempts as a table."""
    from ...core.problem import printable
    from ..errors import report
    from ..pages import read_pages
    from ..server import in_path, server_of
    from ..tables import moment, print_table
    from ..terminal import print_json
    from ..waiting import failure

    letter = read_pages(server_of(options), f"{PATH}/{in_path(options.id)}", options, key="attempts")
    if options.json:
        print_json(letter)
        return 0
    print(printable(f"{letter['id']}  {letter['state']}  {letter['name']} v{letter['version']}"))
    print(printable(f"created    {moment(letter['created_at'])}"))
    print(printable(f"failed     {moment(letter['completed_at'])}"))
    if "retry_of" in letter:
        print(printable(f"retry of   {letter['retry_of']}"))
    print()
    print_table(ATTEMPT_COLUMNS, map(_attempt, letter["attempts"]), whole=("state", "started", "finished"))
    report(failure(letter["error"]))
    if letter["next_cursor"] is not None:
        report(f"there are more: --cursor {letter['next_cursor']}")
    return 0


def _attempt(row: Mapping[str, Any]) -> tuple[Any, ...]:
    from ..tables import moment

    error = row["error"]
    said = None if error is None else f"{error['type']}: {error['message']}"
    return (row["node_id"], row["attempt"], row["state"], moment(row["started_at"]), moment(row["finished_at"]), said)


def requeue_letters(options: argparse.Namespace) -> int:
    """Requeue one, and print the new execution's id or wait for its results; or all that meet the filter."""
    from ..errors import UsageError
    from ..server import in_path, server_of
    from ..waiting import check_wait, follow_up

    check_wait(options)
    if options.id is None and options.wait:
        raise UsageError("--wait goes with the ID of one dead letter")
    wanted = _checked_filter(options, "requeue")
    server = server_of(options)
    if options.id is None:
        return _deal_with_many(server, wanted, options, "requeue", "requeued")
    return follow_up(server, server.post(f"{PATH}/{in_path(options.id)}/requeue", creates=True), options)


def discard_letters(options: argparse.Namespace) -> int:
    """Discard one, or all that meet the filter."""
    from ...core.problem import printable
    from ..server import in_path, server_of
    from ..terminal import print_json

    wanted = _checked_filter(options, "discard")
    server = server_of(options)
    if options.id is None:
        return _deal_with_many(server, wanted, options, "discard", "discarded")
    server.delete(f"{PATH}/{in_path(options.id)}")
    if options.json:
        print_json({"execution_id": options.id, "discarded": True})
    else:
        print(printable(f"{options.id} is discarded"))
    return 0


def _checked_filter(options: argparse.Namespace, verb: str) -> dict[str, object]:
    """The filter. Raises `UsageError` unless either one letter is meant or, by a filter, many."""
    from ..errors import UsageError

    wanted = _filter(options)
    if options.id is not None and (wanted or options.all):
        raise UsageError(f"{verb} either one dead letter, by its ID, or many, by a filter")
    if options.id is None and not wanted and not options.all:
        raise UsageError("give the execution's ID, or a filter such as --error-type, or --all")
    return wanted


def _deal_with_many(
    server: HttpClient, wanted: dict[str, object], options: argparse.Namespace, verb: str, done: str
) -> int:
    """All that there are now: what fails again meanwhile is newer, and the cursor only leads to older ones."""
    from ..confirmation import confirm
    from ..terminal import print_json

    if not options.yes:
        confirm(verb, "dead letter", wanted)
    count = 0
    body = {**wanted, "limit": AT_ONCE}
    while True:
        answer = server.post(f"{PATH}/{verb}", body)
        count += answer[done]
        if answer["next_cursor"] is None:
            break
        body["cursor"] = answer["next_cursor"]
    if options.json:
        print_json({done: count})
    else:
        print(f"{count} {done}")
    return 0

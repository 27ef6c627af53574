"""`workflow-engine keys`: API keys, at a server or in the database itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_server, count, text

if TYPE_CHECKING:
    from ..options import Commands

SCOPES = ("read", "run", "admin")
COLUMNS = ("id", "name", "scope", "created", "expires", "revoked")


def register(commands: Commands) -> None:
    """Add the command."""
    group = commands.add_parser(
        "keys",
        help="create, list and revoke API keys",
        description="With --url or WORKFLOW_ENGINE_URL, at that server, with a key of scope admin; without, "
        "in the database of the settings, which no server may be using: this is how the first key is made.",
    )
    verbs = group.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog=group.prog)
    create = verbs.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", type=text, required=True, help="whose it is or what it is for")
    create.add_argument("--scope", choices=SCOPES, required=True, help="what it allows; each includes those before it")
    create.add_argument("--expires-days", type=count, metavar="DAYS", help="when it ends (never)")
    create.set_defaults(execute=create_key)
    listing = verbs.add_parser("list", help="every key, oldest first; never the keys' texts")
    listing.set_defaults(execute=list_keys)
    revoke = verbs.add_parser("revoke", help="end a key")
    revoke.add_argument("id", type=text, metavar="ID", help="the key's id, which list shows")
    revoke.set_defaults(execute=revoke_key)
    for verb in (create, listing, revoke):
        add_server(verb)


def create_key(options: argparse.Namespace) -> int:
    """Make a key; its text goes to standard output, alone, so that it can go into a file."""
    from ...core.problem import printable
    from ..errors import report
    from ..key_access import key_access
    from ..terminal import print_json

    created = key_access(options).create(options.name, options.scope, options.expires_days)
    if options.json:
        print_json(created)
        return 0
    print(printable(str(created["key"])))
    report(f"key {created['id']} of {created['name']}, scope {created['scope']}. It is not kept, and not shown again.")
    return 0


def list_keys(options: argparse.Namespace) -> int:
    """Print what is known of each key."""
    from ..key_access import key_access
    from ..tables import print_table
    from ..terminal import print_json

    listed = key_access(options).list()
    if options.json:
        print_json(listed)
        return 0
    print_table(COLUMNS, map(_row, listed["items"]), whole=("id", "scope"))
    return 0


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    from ..tables import moment

    times = (moment(key[f"{time}_at"]) for time in ("created", "expires", "revoked"))
    return (key["id"], key["name"], key["scope"], *times)


def revoke_key(options: argparse.Namespace) -> int:
    """End the key: requests with it are refused from now on."""
    from ...core.problem import printable
    from ..key_access import key_access
    from ..terminal import print_json

    key_access(options).revoke(options.id)
    if options.json:
        print_json({"id": options.id, "revoked": True})
    else:
        print(printable(f"{options.id} is revoked"))
    return 0

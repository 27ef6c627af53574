"""Lists of the API, page by page, as one list."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import report
from .http_client import HttpClient
from .tables import print_table
from .terminal import print_json

LARGEST_PAGE_ITEMS = 200


def read_pages(
    server: HttpClient,
    path: str,
    options: argparse.Namespace,
    query: Mapping[str, Any] | None = None,
    *,
    key: str = "items",
) -> dict[str, Any]:
    """One page of at most `options.limit` items behind `options.cursor`, with the cursor to go on with, or None.

    `key`: of the items in the page.
    """
    items: list[Any] = []
    cursor = options.cursor
    while True:
        limit = min(options.limit - len(items), LARGEST_PAGE_ITEMS)
        page = server.get(path, {**(query or {}), "limit": limit, **({"cursor": cursor} if cursor else {})})
        items += page[key]
        cursor = page["next_cursor"]
        if cursor is None or not page[key] or len(items) >= options.limit:
            return {**page, key: items}


def show_page(
    page: Mapping[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    as_json: bool,
    whole: Sequence[str],
) -> int:
    """Print the page, and on standard error how to see what is behind it. Returns 0. `whole`: see `print_table`."""
    if as_json:
        print_json(page)
        return 0
    print_table(columns, rows, whole=whole)
    if page["next_cursor"] is not None:
        report(f"there are more: --cursor {page['next_cursor']}")
    return 0

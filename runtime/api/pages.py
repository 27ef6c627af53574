"""Lists in pages: a page asks for one item more than it shows, to know whether there is another page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def page(
    found: Sequence[Item], limit: int, show: Callable[[Item], object], cursor: Callable[[Item], str]
) -> dict[str, object]:
    """The first `limit` of the items, and the cursor of what comes behind them."""
    shown = found[:limit]
    more = len(found) > limit
    return {"items": [show(item) for item in shown], "next_cursor": cursor(shown[-1]) if more else None}


def cursor_of_id(identifier: str) -> str:
    """A UUID as a cursor."""
    return identifier.replace("-", "")


def id_of_cursor(cursor: str | None) -> str | None:
    """The UUID of a cursor."""
    if cursor is None:
        return None
    return f"{cursor[:8]}-{cursor[8:12]}-{cursor[12:16]}-{cursor[16:20]}-{cursor[20:]}"


def cursor_of_name(name: str) -> str:
    """A name as a cursor."""
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def name_of_cursor(cursor: str | None) -> str | None:
    """The name of a cursor; one that was made up means some place in the list, or its beginning."""
    if cursor is None:
        return None
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("utf-8", "replace")

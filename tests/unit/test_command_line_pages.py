"""Lists that the command line reads page by page."""

from __future__ import annotations

import argparse
from typing import Any

from workflow_engine.runtime.cli.pages import read_pages


class Server:
    """Answers pages that were written down, and remembers what it was asked."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def get(self, _path: str, query: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(query)
        return self.pages.pop(0)


def read(server: Any, limit: int) -> dict[str, Any]:
    return read_pages(server, "/v1/workflows", argparse.Namespace(limit=limit, cursor=None), {"name": "n"})


def test_pages_are_read_until_there_is_enough() -> None:
    server = Server({"items": list(range(200)), "next_cursor": "a"}, {"items": [200, 201], "next_cursor": "b"})
    assert read(server, 202) == {"items": list(range(202)), "next_cursor": "b"}
    assert server.asked == [{"name": "n", "limit": 200}, {"name": "n", "limit": 2, "cursor": "a"}]


def test_pages_are_read_until_there_are_no_more() -> None:
    assert read(Server({"items": [1], "next_cursor": None}), 50) == {"items": [1], "next_cursor": None}


def test_an_empty_page_ends_the_list_whatever_its_cursor_says() -> None:
    server = Server({"items": [1], "next_cursor": "a"}, {"items": [], "next_cursor": "a"})
    assert read(server, 50) == {"items": [1], "next_cursor": "a"}
    assert server.pages == []

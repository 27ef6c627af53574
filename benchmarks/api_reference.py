"""The reference of the API's benchmarks: a bare aiohttp application that answers the same bytes.

    python benchmarks/api_reference.py ANSWERS

ANSWERS is a JSON file: `{"METHOD /path/{parameter}": [status, content type, body]}`. Bodies are read and not looked
at.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web


def _answering(status: int, content_type: str, body: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    data = body.encode()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, body=data, content_type=content_type)

    return answer


async def _serve(answers: dict[str, tuple[int, str, str]]) -> None:
    app = web.Application()
    for route, (status, content_type, body) in answers.items():
        method, path = route.split()
        app.router.add_route(method, path, _answering(status, content_type, body))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    print(f"listening on http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text("utf-8"))))

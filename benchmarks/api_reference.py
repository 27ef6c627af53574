"""The reference of the API's benchmarks: a bare aiohttp application that answers the same bytes.

    python benchmarks/api_reference.py ANSWERS

ANSWERS is a JSON file: `{"METHOD /path/{parameter}": [status, content type, body]}`. Bodies are read and not looked
at; each line of a bulk start is answered by one line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

BULK = "POST /v1/definitions/{name}/executions/bulk"


def _answering(status: int, content_type: str, body: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    data = body.encode()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, body=data, content_type=content_type)

    return answer


def _answering_lines(line: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    data = line.encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(data * chunk.count(b"\n"))
        await response.write_eof()
        return response

    return answer


async def _serve(answers: dict[str, tuple[int, str, str]]) -> None:
    app = web.Application()
    for route, (status, content_type, body) in answers.items():
        method, path = route.split()
        handler = _answering_lines(body) if route == BULK else _answering(status, content_type, body)
        app.router.add_route(method, path, handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    print(f"listening on http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text("utf-8"))))

"""What the attempts of a process are run with, made once for the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from ...plugins.context import Services
from ..clock import Clock
from .attempt import Tools
from .threads import Threads
from .warm import Warm

if TYPE_CHECKING:
    from aiohttp import ClientSession

ResolveSecret = Callable[[str], Awaitable[str]]


def make_tools(
    *, http: Callable[[], ClientSession], secret: ResolveSecret, clock: Clock, max_output_bytes: int
) -> Tools:
    """The tools of this process. `secret` raises `LookupError` for what nobody knows."""
    threads = Threads()
    services = Services(http, secret, _no_waiting, clock.monotonic)
    plain = Services(_no_http, secret, lambda name: threads.wait_for(secret(name)), clock.monotonic)
    return Tools(services, plain, Warm(threads.run), threads, max_output_bytes)


async def no_secrets(name: str) -> str:
    """The secrets of a process in which nobody has any."""
    raise LookupError(f"there is no secret {name!r}: no plugin knows it")


def _no_waiting(name: str) -> NoReturn:
    raise RuntimeError(f"an 'async def' handler must not wait: write await context.secret({name!r})")


def _no_http() -> NoReturn:
    raise RuntimeError("context.http is for 'async def' handlers; a plain function uses an HTTP client of its own")

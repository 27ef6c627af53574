"""`@handler`: how a node type is declared."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args, overload

from pydantic import BaseModel

from ..runtime.core.limits import MAX_TIMEOUT_SECONDS
from .context import NodeContext
from .limits import MAX_RUNNING, RateLimit, RetryDefaults, check_count, check_seconds

HANDLER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")

Lane = Literal["async", "thread", "process"]
"""Where attempts run: on the event loop, in a thread, in a process of their own."""

RunFunction = Callable[..., Any]

ConfigT_co = TypeVar("ConfigT_co", covariant=True)
ConfigT_contra = TypeVar("ConfigT_contra", contravariant=True)
ModelT = TypeVar("ModelT", bound=BaseModel)


class HandlerClass(Protocol[ConfigT_contra]):
    """What a class has to have: `run`, plain or `async def`; `open(self)` and `close(self)` too, if it likes."""

    def run(self, config: ConfigT_contra, context: NodeContext, /) -> Any: ...


class Declare(Protocol[ConfigT_co]):
    """What `handler(...)` returns: it takes the function or the class, and gives the handler."""

    @overload
    def __call__(self, target: Callable[[ConfigT_co, NodeContext], Any], /) -> Handler: ...
    @overload
    def __call__(self, target: type[HandlerClass[ConfigT_co]], /) -> Handler: ...


@dataclass(frozen=True, slots=True)
class Handler:
    """A node type: its name, what runs an attempt, and everything that it declares of itself.

    `run(config, context)` gets the configuration with its templates resolved: an instance of `config_model`, or a
    plain `dict` when there is no model. It returns any JSON value, or what `output_model` takes. Where `make` is given,
    it makes the object whose method `run` is: `run(object, config, context)`.

    Times are in seconds. None: as the settings say, or without a limit.
    """

    name: str
    run: RunFunction
    config_model: type[BaseModel] | None
    description: str
    output_model: type[BaseModel] | None = None
    lane: Lane = "async"
    timeout_seconds: float | None = None
    stale_timeout_seconds: float | None = None
    retry: RetryDefaults | None = None
    max_running_per_process: int | None = None
    max_running: int | None = None
    rate_limit: RateLimit | None = None
    make: Callable[[], Any] | None = None
    is_plain: bool = False
    """Whether `run` is no `async def`: it does not run on an event loop."""


@overload
def handler(
    name: str,
    *,
    config: type[ModelT],
    output: type[BaseModel] | None = None,
    lane: Lane | None = None,
    timeout_seconds: float | None = None,
    stale_timeout_seconds: float | None = None,
    retry: RetryDefaults | None = None,
    max_running_per_process: int | None = None,
    max_running: int | None = None,
    rate_limit: RateLimit | None = None,
) -> Declare[ModelT]: ...
@overload
def handler(
    name: str,
    *,
    config: None = None,
    output: type[BaseModel] | None = None,
    lane: Lane | None = None,
    timeout_seconds: float | None = None,
    stale_timeout_seconds: float | None = None,
    retry: RetryDefaults | None = None,
    max_running_per_process: int | None = None,
    max_running: int | None = None,
    rate_limit: RateLimit | None = None,
) -> Declare[dict[str, Any]]: ...
def handler(
    name: str,
    *,
    config: type[BaseModel] | None = None,
    output: type[BaseModel] | None = None,
    lane: Lane | None = None,
    timeout_seconds: float | None = None,
    stale_timeout_seconds: float | None = None,
    retry: RetryDefaults | None = None,
    max_running_per_process: int | None = None,
    max_running: int | None = None,
    rate_limit: RateLimit | None = None,
) -> Declare[Any]:
    """Declare the decorated `(config, context)` function, or class with such a method `run`, as the handler `name`.

    `config` and `output` are pydantic models. `lane` is where attempts run: `"async"` (of an `async def`, if nothing
    is said) on the event loop, `"thread"` (of a plain function) in a thread, `"process"` in a process of their own.
    A node's own `timeout_seconds` and `retry_config` win over what is declared here, and this over the settings.
    `stale_timeout_seconds` is how long a delivery may be out, while nobody can say whether its worker lives.
    `max_running_per_process` and `max_running` are how many attempts run at once in a process, and on all replicas.

    An object of a class is made once in each process, before its first attempt there; then its `open()` is called, if
    it has one, and at the end its `close()`.

    Raises `ValueError` and `TypeError`, which name the handler, the argument and what to write instead.
    """
    if not isinstance(name, str) or not HANDLER_NAME.fullmatch(name):
        raise ValueError(f"handler name {name!r} does not match {HANDLER_NAME.pattern}")
    for argument, model in (("config", config), ("output", output)):
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"handler {name!r}: {argument} must be a pydantic model, not {model!r}")
    if lane is not None and lane not in get_args(Lane):
        raise ValueError(f"handler {name!r}: lane must be 'async', 'thread' or 'process', not {lane!r}")
    for argument, seconds in (("timeout_seconds", timeout_seconds), ("stale_timeout_seconds", stale_timeout_seconds)):
        if seconds is not None:
            check_seconds(f"handler {name!r}: {argument}", seconds, MAX_TIMEOUT_SECONDS)
    for argument, count in (("max_running_per_process", max_running_per_process), ("max_running", max_running)):
        if count is not None:
            check_count(f"handler {name!r}: {argument}", count, 1, MAX_RUNNING)
    if retry is not None and not isinstance(retry, RetryDefaults):
        raise TypeError(f"handler {name!r}: retry must be RetryDefaults(max_retries=...), not {retry!r}")
    if rate_limit is not None and not isinstance(rate_limit, RateLimit):
        raise TypeError(f"handler {name!r}: rate_limit must be RateLimit(count, per_seconds), not {rate_limit!r}")

    def declare(target: Any, /) -> Handler:
        run, make = _run_and_make(name, target)
        return Handler(
            name,
            run,
            config,
            inspect.getdoc(target) or "",
            output_model=output,
            lane=_lane(name, run, lane),
            timeout_seconds=timeout_seconds,
            stale_timeout_seconds=stale_timeout_seconds,
            retry=retry,
            max_running_per_process=max_running_per_process,
            max_running=max_running,
            rate_limit=rate_limit,
            make=make,
            is_plain=not _is_async(run),
        )

    return declare


def _run_and_make(name: str, target: Any) -> tuple[RunFunction, Callable[[], Any] | None]:
    if not isinstance(target, type):
        if not callable(target):
            raise TypeError(f"handler {name!r}: @handler stands before a function or a class, not {target!r}")
        _check_call(name, target, 2, "the function takes (config, context)")
        return target, None
    run = getattr(target, "run", None)
    if not callable(run):
        raise TypeError(f"handler {name!r}: the class {target.__name__} needs a method run(self, config, context)")
    _check_call(name, target, 0, f"the class {target.__name__} is made without arguments")
    _check_call(name, run, 3, f"{target.__name__}.run takes (self, config, context)")
    for method in ("open", "close"):
        found = getattr(target, method, None)
        if found is not None:
            _check_call(name, found, 1, f"{target.__name__}.{method} takes (self)")
    return run, target


def _check_call(name: str, function: Any, count: int, wanted: str) -> None:
    """Raise `TypeError` for what cannot be called with so many arguments."""
    if not callable(function):
        raise TypeError(f"handler {name!r}: {wanted}, and this is no function but {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function in C, which does not say what it takes
        return
    try:
        signature.bind(*[None] * count)
    except TypeError:
        raise TypeError(f"handler {name!r}: {wanted}, not {signature}") from None


def _lane(name: str, run: RunFunction, lane: Lane | None) -> Lane:
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        raise TypeError(f"handler {name!r} yields; let it return its result")
    is_async = _is_async(run)
    if lane == "async" and not is_async:
        raise TypeError(f"handler {name!r}: lane 'async' takes an 'async def'; a plain function has lane 'thread'")
    if lane == "thread" and is_async:
        raise TypeError(f"handler {name!r}: lane 'thread' takes a plain 'def'; an 'async def' has lane 'async'")
    return lane or ("async" if is_async else "thread")


def _is_async(run: RunFunction) -> bool:
    return inspect.iscoroutinefunction(run) or inspect.iscoroutinefunction(type(run).__call__)

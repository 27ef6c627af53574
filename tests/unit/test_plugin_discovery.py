"""Finding plugins: what they may register, and errors that say which plugin, where and why."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from workflow_engine.plugins import (
    ENTRY_POINT_GROUP,
    Handler,
    NodeContext,
    RateLimit,
    RetryDefaults,
    handler,
    hookimpl,
)
from workflow_engine.plugins.discovery import Catalogue, PluginError, discover

BUILT_IN = {"input", "output", "call_external_service", "llm_service"}


@handler("one")
async def one(_config: dict[str, Any], _context: NodeContext) -> Any:
    """The first."""


@handler("two")
async def two(_config: dict[str, Any], _context: NodeContext) -> Any:
    """The second."""


def registering(result: Any, name: str = "a_plugin") -> object:
    """A plugin, given as an object, whose hook returns `result`, or raises it."""

    class Plugin:
        """As a module would be."""

        __name__ = name

        @hookimpl
        def workflow_engine_handlers(self) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

    return Plugin()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`install("dist", source)`: a distribution with one module and one entry point, gone at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def install(distribution: str, source: str, entry_point: str = "main", target: str | None = None) -> None:
        module = distribution.replace("-", "_") + "_module"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        information = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        text = f"[{ENTRY_POINT_GROUP}]\n{entry_point} = {target or module}\n"
        (information / "entry_points.txt").write_text(text)

    yield install
    for module in modules:
        sys.modules.pop(module, None)


GOOD = """
from workflow_engine.plugins import handler, hookimpl

@handler("{name}")
async def run(config, context):
    "What it does."

@hookimpl
def workflow_engine_handlers(settings):
    return [run] if settings["demo_mode"] else []
"""


# --- what is found ----------------------------------------------------------------------------------------


def test_the_built_in_handlers_are_found_by_their_entry_point() -> None:
    catalogue = discover({})
    assert set(catalogue) == BUILT_IN
    assert len(catalogue) == len(catalogue.config_checks) == 4
    assert catalogue["input"].name == "input"
    with pytest.raises(KeyError):
        catalogue["nothing"]


def test_an_installed_plugin_is_found(install: Callable[..., None]) -> None:
    install("good-plugin", GOOD.format(name="good"))
    assert set(discover({"demo_mode": True})) == {*BUILT_IN, "good"}
    assert set(discover({"demo_mode": False})) == BUILT_IN


def test_plugins_may_be_given_as_objects() -> None:
    catalogue = discover({}, [registering([one], "first"), registering((two,), "second")])
    assert set(catalogue) == {*BUILT_IN, "one", "two"}
    assert catalogue["one"] is one


@pytest.mark.parametrize("result", [[], (), iter([]), {}])
def test_a_plugin_may_have_no_handlers(result: Any) -> None:
    assert set(discover({}, [registering(result)])) == BUILT_IN


def test_a_hook_may_be_a_generator() -> None:
    class Plugin:
        @hookimpl
        def workflow_engine_handlers(self) -> Iterator[Handler]:
            yield one
            yield two

    assert {"one", "two"} < set(discover({}, [Plugin()]))


def test_a_plugin_sees_the_settings_and_cannot_change_them() -> None:
    seen: list[Mapping[str, Any]] = []

    class Plugin:
        @hookimpl
        def workflow_engine_handlers(self, settings: Mapping[str, Any]) -> list[Handler]:
            seen.append(settings)
            return []

    given = {"demo_mode": True, "llm_base_url": "http://llm"}
    discover(given, [Plugin()])
    assert [dict(settings) for settings in seen] == [given]
    with pytest.raises(TypeError):
        seen[0]["demo_mode"] = False  # type: ignore[index]


def test_a_hook_for_another_version_can_be_marked_optional() -> None:
    class Plugin:
        @hookimpl(optionalhook=True)
        def workflow_engine_of_the_future(self) -> None:
            """Not called."""

        @hookimpl
        def workflow_engine_handlers(self) -> list[Handler]:
            return [one]

    assert "one" in discover({}, [Plugin()])


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (
            "from workflow_engine.plugins import handler\n@handler('x')\ndef run(config): pass",
            "TypeError: handler 'x': the function takes (config, context), not (config)",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported(install: Callable[..., None], source: str, cause: str) -> None:
    install("broken-plugin", source, entry_point="entry")
    with pytest.raises(PluginError) as caught:
        discover({})
    expected = f"plugin broken-plugin 1.0 (entry point entry = broken_plugin_module) cannot be loaded: {cause}"
    assert str(caught.value).startswith(expected)
    assert "; install what it needs, uninstall broken-plugin, or set PLUGINS_ON_ERROR=skip" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("target", ["no_such_module_at_all", "broken_plugin_module:nothing"])
def test_an_entry_point_that_leads_nowhere(install: Callable[..., None], target: str) -> None:
    install("broken-plugin", "", target=target)
    with pytest.raises(PluginError, match=r"^plugin broken-plugin 1.0 \(.*\) cannot be loaded: \w+Error: "):
        discover({})


def test_an_interrupt_while_importing_is_nobodys_fault(install: Callable[..., None]) -> None:
    install("slow-plugin", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover({})


def test_a_hook_with_unknown_arguments(install: Callable[..., None]) -> None:
    source = "from workflow_engine.plugins import hookimpl\n@hookimpl\ndef workflow_engine_handlers(setings): return []"
    install("wrong-plugin", source)
    with pytest.raises(PluginError, match=r"^plugin wrong-plugin 1.0 \(.*\) cannot be used: .*setings"):
        discover({})


def test_a_hook_whose_name_is_misspelled(install: Callable[..., None]) -> None:
    source = "from workflow_engine.plugins import hookimpl\n@hookimpl\ndef workflow_engine_handler(): return []"
    install("wrong-plugin", source)
    message = r"^plugin wrong-plugin 1.0 \(.*\) cannot be used: .*unknown hook 'workflow_engine_handler'"
    with pytest.raises(PluginError, match=message):
        discover({})


def test_an_object_that_breaks_the_specification() -> None:
    class Plugin:
        @hookimpl
        def workflow_engine_handlers(self, setings: object) -> list[Handler]:
            return []

    with pytest.raises(PluginError, match=r"(?s)cannot be used: PluginValidationError: .*setings"):
        discover({}, [Plugin()])


def test_an_object_given_twice() -> None:
    plugin = registering([one])
    with pytest.raises(PluginError, match=r"^plugin a_plugin is given twice; give it once$"):
        discover({}, [plugin, plugin])


def test_a_name_that_two_plugins_register(install: Callable[..., None]) -> None:
    install("first-plugin", GOOD.format(name="same"), entry_point="a")
    install("second-plugin", GOOD.format(name="same"), entry_point="b")
    with pytest.raises(PluginError) as caught:
        discover({"demo_mode": True})
    message = str(caught.value)
    assert message.startswith("the handler 'same' is registered by ")
    assert "first-plugin 1.0 (entry point a = first_plugin_module)" in message
    assert "second-plugin 1.0 (entry point b = second_plugin_module)" in message
    assert message.endswith("; remove one of them")


def test_a_name_of_a_built_in_handler() -> None:
    @handler("input")
    async def mine(_config: dict[str, Any], _context: NodeContext) -> Any:
        """Another one."""

    with pytest.raises(PluginError, match=r"the handler 'input' is registered by .*workflow-orchestration-engine.*"):
        discover({}, [registering([mine])])


def test_a_name_that_one_plugin_registers_twice() -> None:
    with pytest.raises(PluginError, match="the handler 'one' is registered by a_plugin and by a_plugin"):
        discover({}, [registering([one, one])])


def test_a_catalogue_refuses_a_name_twice() -> None:
    with pytest.raises(PluginError, match="two handlers are called 'one'"):
        Catalogue([one, one])


def broken() -> Iterator[Handler]:
    yield one
    raise RuntimeError("half way")


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (RuntimeError("not today"), "fails to register: RuntimeError: not today"),
        (SystemExit(3), "fails to register: SystemExit: 3"),
        (None, "fails to register: TypeError: the hook returns nothing; return its handlers"),
        (one, "fails to register: TypeError: 'Handler' object is not iterable"),
        (5, "fails to register: TypeError: 'int' object is not iterable"),
        (broken(), "fails to register: RuntimeError: half way"),
        ([one.run], "registers <function one at "),
        (["one"], "registers 'one', which is no handler: use @handler"),
        ({"one": one}, "registers 'one', which is no handler: use @handler"),
        ([None], "registers None, which is no handler: use @handler"),
    ],
)
def test_a_registration_that_is_none(result: Any, cause: str) -> None:
    with pytest.raises(PluginError) as caught:
        discover({}, [registering(result)])
    assert str(caught.value).startswith(f"plugin a_plugin {cause}")


# --- @handler ---------------------------------------------------------------------------------------------


def test_a_handler_says_what_it_is() -> None:
    class Config(BaseModel):
        """Nothing."""

    async def run(_config: Config, _context: NodeContext) -> Any:
        """What it does.

        In detail.
        """

    made = handler("my.handler-2", config=Config)(run)
    assert made == Handler("my.handler-2", run, Config, "What it does.\n\nIn detail.")
    run.__doc__ = None
    assert handler("x")(run).description == ""


@pytest.mark.parametrize("name", ["a", "_", "A-b.c_9", "x" * 128])
def test_names_that_are_allowed(name: str) -> None:
    assert handler(name)(one.run).name == name


@pytest.mark.parametrize(
    "name", ["", "1a", "-a", ".a", "a b", "a/b", "a\n", "ä", "a:b", "x" * 129, "{{a}}", None, 5, b"a", one.run]
)
def test_names_that_are_not(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^handler name .* does not match "):
        handler(name)


def sync(_config: Any, _context: NodeContext) -> Any:
    """Take as long as it likes."""


async def generate(_config: Any, _context: NodeContext) -> Any:
    """Yield, which is no result."""
    yield 1


class Callable_:
    """Called like a function."""

    async def __call__(self, _config: Any, _context: NodeContext) -> Any:
        """Run."""


class Warm:
    """Keep something for all attempts."""

    def open(self) -> None:
        """Get it."""

    async def run(self, _config: Any, _context: NodeContext) -> Any:
        """Use it."""

    async def close(self) -> None:
        """Give it back."""


class PlainWarm:
    """Have nothing but a `run`."""

    def run(self, _config: Any, _context: NodeContext) -> Any:
        """Run."""


@pytest.mark.parametrize(
    ("target", "lane", "wanted"),
    [
        (one.run, None, "async"),
        (one.run, "async", "async"),
        (one.run, "process", "process"),
        (sync, None, "thread"),
        (sync, "thread", "thread"),
        (sync, "process", "process"),
        (Callable_(), None, "async"),
        (lambda c, x: None, None, "thread"),
        (Warm, None, "async"),
        (Warm, "process", "process"),
        (PlainWarm, None, "thread"),
    ],
)
def test_the_lane_follows_from_the_function_unless_it_is_declared(target: Any, lane: Any, wanted: str) -> None:
    assert handler("x", lane=lane)(target).lane == wanted


def test_a_class_is_made_by_the_engine() -> None:
    made = handler("x")(Warm)

    assert made.make is Warm
    assert made.run is Warm.run
    assert made.description == "Keep something for all attempts."
    assert handler("x")(sync).make is None


def test_everything_that_is_declared_is_kept() -> None:
    limit = RateLimit(5, 1, key=str)
    made = handler(
        "x",
        output=Checked,
        timeout_seconds=5,
        stale_timeout_seconds=0.5,
        retry=RetryDefaults(max_retries=0, jitter=False),
        max_running_per_process=1,
        max_running=2,
        rate_limit=limit,
    )(sync)

    assert (made.output_model, made.timeout_seconds, made.stale_timeout_seconds) == (Checked, 5, 0.5)
    assert (made.max_running_per_process, made.max_running, made.rate_limit) == (1, 2, limit)
    assert made.retry == RetryDefaults(0, None, None, None, False)


class Methods:
    """Methods of classes that are no handlers."""

    def needs_an_argument(self, argument: Any) -> None:
        """Be called with one."""

    def run_without_context(self, config: Any) -> Any:
        """Miss something."""


@pytest.mark.parametrize(
    ("target", "lane", "message"),
    [
        (None, None, "@handler stands before a function or a class, not None"),
        (generate, None, "yields; let it return its result"),
        (lambda c, x: (yield), None, "yields; let it return its result"),
        (functools.partial(sync, 1), None, "the function takes (config, context), not (_context: "),
        (lambda: None, None, "the function takes (config, context), not ()"),
        (sync, "async", "lane 'async' takes an 'async def'; a plain function has lane 'thread'"),
        (PlainWarm, "async", "lane 'async' takes an 'async def'; a plain function has lane 'thread'"),
        (one.run, "thread", "lane 'thread' takes a plain 'def'; an 'async def' has lane 'async'"),
        (dict, None, "the class dict needs a method run(self, config, context)"),
        (type("T", (), {"run": 5}), None, "the class T needs a method run(self, config, context)"),
        (type("T", (), {"run": Methods.run_without_context}), None, "T.run takes (self, config, context), not (self, "),
        (
            type("T", (PlainWarm,), {"__init__": Methods.needs_an_argument}),
            None,
            "the class T is made without arguments, not (argument: ",
        ),
        (type("T", (PlainWarm,), {"open": Methods.needs_an_argument}), None, "T.open takes (self), not (self, "),
        (type("T", (PlainWarm,), {"close": 5}), None, "T.close takes (self), and this is no function but 5"),
    ],
)
def test_what_cannot_run_an_attempt_is_refused(target: Any, lane: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        handler("x", lane=lane)(target)
    assert str(caught.value).startswith("handler 'x'")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"lane": "fast"}, ValueError, "lane must be 'async', 'thread' or 'process', not 'fast'"),
        ({"lane": []}, ValueError, "lane must be 'async', 'thread' or 'process', not []"),
        ({"output": dict}, TypeError, "output must be a pydantic model, not <class 'dict'>"),
        ({"timeout_seconds": 0}, ValueError, "timeout_seconds must be above 0 and at most 604800 seconds, not 0"),
        ({"timeout_seconds": float("nan")}, ValueError, "timeout_seconds must be "),
        ({"timeout_seconds": float("inf")}, ValueError, "timeout_seconds must be "),
        ({"timeout_seconds": "5"}, TypeError, "timeout_seconds must be a number, not '5'"),
        ({"timeout_seconds": True}, TypeError, "timeout_seconds must be a number, not True"),
        ({"stale_timeout_seconds": -1}, ValueError, "stale_timeout_seconds must be above 0"),
        ({"retry": 3}, TypeError, "retry must be RetryDefaults(max_retries=...), not 3"),
        ({"max_running_per_process": 0}, ValueError, "max_running_per_process must be from 1 to 1000000, not 0"),
        ({"max_running": 1.5}, TypeError, "max_running must be a whole number, not 1.5"),
        ({"rate_limit": (5, 1)}, TypeError, "rate_limit must be RateLimit(count, per_seconds), not (5, 1)"),
    ],
)
def test_a_bad_declaration_names_the_handler_and_the_argument(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        handler("x", **arguments)(sync)
    assert str(caught.value).startswith(f"handler 'x': {message}")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: RateLimit(0, 1), ValueError, "RateLimit: count must be from 1 to 1000000, not 0"),
        (lambda: RateLimit(1.0, 1), TypeError, "RateLimit: count must be a whole number, not 1.0"),
        (lambda: RateLimit(1, 0), ValueError, "RateLimit: per_seconds must be above 0"),
        (lambda: RateLimit(100_000, 600_000), ValueError, "RateLimit: 100000 in 600000 seconds cannot be kept"),
        (lambda: RateLimit(1, 1e-9), ValueError, "RateLimit: 1 in 1e-09 seconds cannot be kept"),
        (lambda: RateLimit(1, 1, key="tenant"), TypeError, "RateLimit: key must be a function"),
        (RetryDefaults, ValueError, "RetryDefaults: says nothing; give it max_retries"),
        (lambda: RetryDefaults(max_retries=-1), ValueError, "RetryDefaults: max_retries must be from 0 to 100, not -1"),
        (lambda: RetryDefaults(initial_delay_seconds=-1), ValueError, "RetryDefaults: initial_delay_seconds must be "),
        (lambda: RetryDefaults(max_delay_seconds="1"), TypeError, "RetryDefaults: max_delay_seconds must be a number"),
        (lambda: RetryDefaults(exponential_base=0.5), ValueError, "RetryDefaults: exponential_base must be from 1 to"),
        (lambda: RetryDefaults(jitter=1), TypeError, "RetryDefaults: jitter must be True or False, not 1"),
    ],
)
def test_bad_limits_are_refused(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("config", [dict, {}, "Config", 5, lambda: None])
def test_a_configuration_that_is_no_model_is_refused(config: Any) -> None:
    with pytest.raises(TypeError, match="handler 'x': config must be a pydantic model, not "):
        handler("x", config=config)


# --- configurations are checked by the models -------------------------------------------------------------


class Checked(BaseModel):
    """A model with a validator that stumbles over what is not a number."""

    size: Any

    @field_validator("size")
    @classmethod
    def check(cls, size: Any) -> Any:
        if size / 2 > 10:
            raise ValueError("is too big")
        return size


@pytest.mark.parametrize(
    ("config", "faults"),
    [
        ({"size": 4}, []),
        ({}, [(("size",), "is required; add it")]),
        ({"size": 40}, [(("size",), "is too big")]),
        ({"size": [4]}, [((), "cannot be checked: TypeError: unsupported operand type(s) for /: 'list' and 'int'")]),
        ({"size": "{{ input.size }}"}, []),
    ],
)
def test_a_configuration_is_checked_by_its_model(config: dict[str, Any], faults: list[Any]) -> None:
    @handler("sized", config=Checked)
    async def sized(_config: Checked, _context: NodeContext) -> Any:
        """Has a size."""

    assert list(Catalogue([sized]).config_checks["sized"](config)) == faults


def test_without_a_model_every_configuration_will_do() -> None:
    assert list(Catalogue([one]).config_checks["one"]({"anything": object()})) == []

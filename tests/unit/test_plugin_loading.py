"""Loading plugins: which are, in what order, what of them, and what is said of the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from distributions import files_of, install_into
from pydantic import BaseModel, Field, WithJsonSchema

from workflow_engine.config import load_settings
from workflow_engine.plugins import Handler, NodeContext, handler, hookimpl
from workflow_engine.plugins.discovery import Catalogue, Plugin, PluginError, discover
from workflow_engine.plugins.hooks import HOOKS
from workflow_engine.plugins.sources import Origin, Policy
from workflow_engine.runtime.core.plugin_api import PLUGIN_API_VERSION
from workflow_engine.runtime.parts import plugin_settings

BUILT_IN = {"input", "output", "call_external_service", "llm_service"}
OWN = "workflow-orchestration-engine"

HANDLER = """
from workflow_engine.plugins import handler

@handler("{name}")
def run(config, context):
    "What it does."
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("dist", source, ...)`: a distribution with a module of its name; gone at the end. Returns the folder."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])

    def install(
        distribution: str, source: str = "", *, version: str = "1.0", target: str = "{}", folder: str = "site"
    ) -> Path:
        module = distribution.replace("-", "_")
        files = files_of(distribution, {f"{module}.py": source}, {"main": target.format(module)}, version)
        install_into(tmp_path / folder, files)
        return tmp_path / folder

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


def states(catalogue: Catalogue) -> dict[str | None, str]:
    """How each distribution fared; those given as objects are None."""
    return {plugin.origin.distribution: plugin.state for plugin in catalogue.plugins}


def one(catalogue: Catalogue, distribution: str | None) -> Plugin:
    """The plugin of a distribution."""
    [found] = [plugin for plugin in catalogue.plugins if plugin.origin.distribution == distribution]
    return found


# --- what a plugin is -------------------------------------------------------------------------------------


def test_the_engines_own_plugin_comes_first_by_the_same_path(install: Install) -> None:
    install("acme", HANDLER.format(name="a"))
    install("zebra", HANDLER.format(name="z"))
    catalogue = discover({})
    assert [plugin.origin.distribution for plugin in catalogue.plugins] == [OWN, "acme", "zebra"]
    own = catalogue.plugins[0]
    assert {each.name for each in own.handlers} == BUILT_IN
    assert (own.entry_point, own.hooks) == ("builtin", ("workflow_engine_handlers",))


def test_a_module_has_its_handlers_without_any_hook(install: Install) -> None:
    source = HANDLER.format(name="first") + "again = run\n" + HANDLER.format(name="second").replace("run", "other")
    install("acme", source)
    plugin = one(discover({}), "acme")
    assert [each.name for each in plugin.handlers] == ["first", "second"]
    assert plugin.hooks == ()


def test_a_hook_that_names_handlers_is_the_last_word(install: Install) -> None:
    hook = "from workflow_engine.plugins import hookimpl\n@hookimpl\ndef workflow_engine_handlers(): return []\n"
    install("acme", HANDLER.format(name="first") + hook)
    assert one(discover({}), "acme").handlers == ()


def test_an_entry_point_may_name_a_handler(install: Install) -> None:
    install("acme", HANDLER.format(name="first"), target="{}:run")
    assert "first" in discover({})


def test_a_program_may_give_a_module_or_a_handler() -> None:
    module = ModuleType("given.module")
    module.run = handler("given")(lambda config, context: None)  # type: ignore[attr-defined]
    catalogue = discover({}, [module, handler("other")(lambda config, context: None)])
    assert set(catalogue) == BUILT_IN | {"given", "other"}
    assert [plugin.name for plugin in catalogue.plugins[1:]] == ["given.module", "other"]


def test_a_module_with_nothing_in_it_is_no_plugin(install: Install) -> None:
    install("acme", "def run(config, context): pass")
    with pytest.raises(PluginError, match="it has no handler and implements no hook; mark its functions with @handler"):
        discover({})


def test_what_else_a_plugin_may_have_counts() -> None:
    class Watcher:
        @hookimpl
        def workflow_engine_attempt_started(self) -> None:
            """Watch."""

    catalogue = discover({}, [Watcher()])
    assert one(catalogue, None).hooks == ("workflow_engine_attempt_started",)


# --- what may be loaded -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow", "refusal"),
    [
        (("*",), None),
        (("acme-handlers",), None),
        (("Acme.Handlers==1.2",), None),
        (("acme-handlers<1", "acme-handlers>1"), None),
        ((), "PLUGINS_ALLOW does not name it; add acme-handlers to load it"),
        (("acme",), "PLUGINS_ALLOW does not name it; add acme-handlers to load it"),
        (
            ("acme-handlers>=2", "acme-handlers<1"),
            "PLUGINS_ALLOW wants acme-handlers>=2 or acme-handlers<1; install that, or allow acme-handlers==1.2",
        ),
    ],
)
def test_what_is_allowed(allow: tuple[str, ...], refusal: str | None) -> None:
    policy = Policy(allow, "stop", None)
    assert policy.refusal(Origin("acme_handlers", "1.2")) == refusal
    assert policy.refusal(Origin(OWN, "0.1")) is None


def test_what_is_not_allowed_is_not_even_imported(install: Install) -> None:
    install("acme", "raise RuntimeError('imported')")
    install("listed", HANDLER.format(name="listed"))
    catalogue = discover({"plugins_allow": ("listed",)})
    assert "acme" not in sys.modules
    assert states(catalogue) == {OWN: "loaded", "acme": "refused", "listed": "loaded"}
    assert list(catalogue.notices) == [
        "not loaded: acme 1.0 (entry point main = acme): PLUGINS_ALLOW does not name it; add acme to load it"
    ]
    assert set(catalogue) == BUILT_IN | {"listed"}


@pytest.mark.parametrize(("environment", "loaded"), [("dev", True), ("test", True), ("prod", False)])
def test_in_production_what_is_loaded_has_to_be_named(
    install: Install, environment: str, loaded: bool, clean_environment: None
) -> None:
    install("acme", HANDLER.format(name="first"))
    settings = load_settings({"environment": environment})
    assert ("first" in discover(plugin_settings(settings))) is loaded
    assert ("acme" in sys.modules) is loaded
    named = load_settings({"environment": environment, "plugins_allow": "acme==1.*"})
    assert "first" in discover(plugin_settings(named))


# --- versions ---------------------------------------------------------------------------------------------


def test_a_plugin_made_for_this_version(install: Install) -> None:
    install("acme", HANDLER.format(name="first") + f"workflow_engine_api = {PLUGIN_API_VERSION.split('.')[0]}")
    assert "first" in discover({})


@pytest.mark.parametrize("version", [0, 2])
def test_a_plugin_made_for_another_version(install: Install, version: int) -> None:
    install("acme", HANDLER.format(name="first") + f"workflow_engine_api = {version}")
    with pytest.raises(PluginError) as caught:
        discover({})
    assert str(caught.value) == (
        f"plugin acme 1.0 (entry point main = acme) cannot be used: it was made for version {version} of the plugin "
        f"API, and this engine has {PLUGIN_API_VERSION}; install a version of it that was made for 1, or an engine "
        f"that has {version}"
    )
    catalogue = discover({"plugins_on_error": "skip"})
    assert one(catalogue, "acme").state == "refused"
    assert list(catalogue.notices) == [f"goes on without a plugin: {caught.value}"]


@pytest.mark.parametrize("version", ["1.0", True, 1.5])
def test_a_version_that_is_no_number(version: object) -> None:
    module = ModuleType("acme")
    module.workflow_engine_api = version  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="write the number of a major version, such as workflow_engine_api = 1"):
        discover({}, [module])


# --- what is broken ---------------------------------------------------------------------------------------


def test_all_that_is_broken_is_told_at_once(install: Install) -> None:
    install("acme", "import no_such_module")
    install("zebra", "def broken(:")
    with pytest.raises(PluginError) as caught:
        discover({})
    first, second = str(caught.value).splitlines()
    assert first.startswith("plugin acme 1.0 (entry point main = acme) cannot be loaded: ModuleNotFoundError: ")
    assert second.startswith("plugin zebra 1.0 (entry point main = zebra) cannot be loaded: SyntaxError: ")


def test_it_goes_on_without_what_is_broken(install: Install) -> None:
    install("acme", "import no_such_module")
    install("zebra", HANDLER.format(name="z"))
    catalogue = discover({"plugins_on_error": "skip"})
    assert set(catalogue) == BUILT_IN | {"z"}
    assert states(catalogue) == {OWN: "loaded", "acme": "failed", "zebra": "loaded"}
    reason = one(catalogue, "acme").reason
    assert list(catalogue.notices) == [f"goes on without a plugin: {reason}"]
    assert one(catalogue, "zebra").origin == Origin("zebra", "1.0")


def test_of_two_that_register_a_name_the_first_stays(install: Install) -> None:
    install("acme", HANDLER.format(name="input"))
    install("zebra", HANDLER.format(name="z"))
    install("zoo", HANDLER.format(name="new") + HANDLER.format(name="z").replace("run", "other"))
    catalogue = discover({"plugins_on_error": "skip"})
    assert states(catalogue) == {OWN: "loaded", "acme": "failed", "zebra": "loaded", "zoo": "failed"}
    assert set(catalogue) == BUILT_IN | {"z"}, "a plugin is there with all of its handlers, or not at all"
    assert catalogue["input"].config_model is discover({"plugins_allow": ()})["input"].config_model
    assert one(catalogue, "acme").reason == (
        f"the handler 'input' is registered by {catalogue.plugins[0].name} "
        "and by acme 1.0 (entry point main = acme); remove one of them"
    )


def test_a_hook_that_cannot_be_asynchronous() -> None:
    class Plugin:
        @hookimpl
        async def workflow_engine_attempt_started(self) -> None:
            """Never awaited."""

    with pytest.raises(PluginError, match="workflow_engine_attempt_started is 'async def'; make it a plain 'def'"):
        discover({}, [Plugin()])


class Invalid(BaseModel):
    value: Annotated[int, WithJsonSchema({"type": "whole number"})]


class Nameless(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    value: ModuleType | None = None


class Vast(BaseModel):
    value: str = Field(description="x" * 300_000)


@pytest.mark.parametrize("argument", ["config", "output"])
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Invalid, "has no valid JSON Schema: at properties/value/type: 'whole number' is not valid"),
        (Nameless, "has no JSON Schema: PydanticInvalidForJsonSchema: "),
        (Vast, "has a JSON Schema that cannot be told to others: "),
    ],
)
def test_a_schema_that_is_none(argument: str, model: type[BaseModel], why: str) -> None:
    def run(config: Any, context: NodeContext) -> None:
        """Do nothing."""

    arguments: dict[str, Any] = {argument: model}
    made: Handler = handler("x", **arguments)(run)
    with pytest.raises(PluginError) as caught:
        discover({}, [made])
    assert str(caught.value).startswith(f"plugin x cannot be used: the {argument} of handler 'x' {why}")


# --- a folder of plugins ----------------------------------------------------------------------------------


def test_a_folder_is_searched_after_all_else(install: Install) -> None:
    folder = install("acme", HANDLER.format(name="first"), folder="more")
    catalogue = discover({"plugins_dir": folder})
    assert set(catalogue) == BUILT_IN | {"first"}
    assert sys.path[-1] == str(folder.resolve())
    assert discover({"plugins_dir": folder}).notices == catalogue.notices == []
    assert sys.path.count(str(folder.resolve())) == 1


def test_what_is_installed_goes_before_what_is_in_the_folder(install: Install) -> None:
    install("acme", HANDLER.format(name="installed"), version="2.0")
    folder = install("acme", HANDLER.format(name="in_the_folder"), version="1.0", folder="more")
    catalogue = discover({"plugins_dir": folder})
    assert set(catalogue) == BUILT_IN | {"installed"}
    assert one(catalogue, "acme").origin.version == "2.0"
    assert list(catalogue.notices) == [
        "PLUGINS_DIR has packages that are installed beside it as well, where they are used: acme 1.0 (used: 2.0)"
    ]


def test_path_files_in_the_folder_are_not_run(install: Install) -> None:
    folder = install("acme", HANDLER.format(name="first"), folder="more")
    (folder / "evil.pth").write_text("import sys; sys.modules['evil'] = sys\n")
    catalogue = discover({"plugins_dir": folder})
    assert "evil" not in sys.modules
    assert list(catalogue.notices) == [
        "PLUGINS_DIR has files that Python would run at its start, and that are not run: evil.pth"
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"^PLUGINS_DIR: there is no folder .*/none; make it, or unset PLUGINS_DIR$"):
        discover({"plugins_dir": tmp_path / "none"})


# --- the specifications themselves ------------------------------------------------------------------------


def test_there_are_ten_hooks_at_most() -> None:
    assert 0 < len(HOOKS) <= 10

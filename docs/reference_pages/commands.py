"""Every command with its arguments and options, from the parser that reads them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from workflow_engine.runtime.cli.errors import EXIT_CODES
from workflow_engine.runtime.cli.main import build_parser

from .markdown import anchor, code, table


def commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """(full name, what it does, parser) of each command, a command before the ones below it."""
    parser = build_parser()
    yield parser.prog, parser.description or "", parser
    yield from _below(parser)


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments and options of one command, without the choice of a command below it and without --help."""
    hidden = (argparse._SubParsersAction, argparse._HelpAction)
    return [action for action in parser._actions if not isinstance(action, hidden) and action.help != argparse.SUPPRESS]


def spelled(action: argparse.Action) -> str:
    """An option as it is typed: `--input NAME=VALUE`; an argument by its name."""
    value = action.metavar or action.dest.upper()
    if not action.option_strings:
        return str(action.metavar or action.dest)
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    if action.choices is not None:
        value = "|".join(str(choice) for choice in action.choices)
    return f"{names} {value}"


def render() -> str:
    """The whole command line."""
    codes = table(("exit code", "meaning"), [(str(code), _sentence(meaning)) for code, meaning in EXIT_CODES])
    return "\n\n".join([codes, *(_section(*command) for command in commands())])


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                if name in helps and helps[name] != argparse.SUPPRESS:
                    yield below.prog, helps[name], below
                    yield from _below(below)


def _section(name: str, summary: str, parser: argparse.ArgumentParser) -> str:
    level = "###" if name.count(" ") > 1 else "##"
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    parts = [anchor("command-" + name.replace(" ", "-")), f"{level} {name}", _sentence(parser.description or summary)]
    parts.append(f"```text\n{usage}\n```")
    rows = [(code(spelled(action)), _sentence(action.help or "")) for action in arguments(parser)]
    if rows:
        parts.append(table(("argument or option", "meaning"), rows))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) or not text else ".")

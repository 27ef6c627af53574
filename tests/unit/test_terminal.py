"""What the command line writes: no text of others can act on a terminal, and tables keep what one copies."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from workflow_engine.runtime.cli import tables
from workflow_engine.runtime.cli.errors import report
from workflow_engine.runtime.cli.tables import print_table
from workflow_engine.runtime.cli.terminal import print_json

UNFRIENDLY = "\x1b[2J \x07 \x7f \x9b31m \u202e \u2066 \ufeff \u2028 \ud800 [red]text[/red]"


def acted_on(output: str) -> list[str]:
    """The characters of an output that a terminal does not simply show."""
    return [character for character in output if not character.isprintable() and character != "\n"]


def test_messages_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    report(UNFRIENDLY)
    print_table(["text"], [[UNFRIENDLY]])
    written = capsys.readouterr()
    assert acted_on(written.out) == acted_on(written.err) == []
    assert "\\x1b[2J \\x07 \\x7f \\x9b31m \\u202e" in written.err
    assert "[red]text[/red]" in written.out


@example("\u20c1\u202e")  # a character that this Python does not know yet is none that acts
@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_documents_are_the_same_without_what_acts_on_a_terminal(value: Any) -> None:
    written: list[str] = []

    class Stream:
        encoding = "UTF-8"
        write = written.append

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", Stream())
        print_json(value)
    text = "".join(written)
    assert json.loads(text) == value
    controls = [c for c in acted_on(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert [c for c in controls if ord(c) < 0xA0 or 0x2000 <= ord(c) < 0x2100 or 0xD800 <= ord(c) < 0xE000] == []


def test_a_terminal_that_has_few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Stream:
        encoding = "ascii"
        write = written.append

    monkeypatch.setattr("sys.stdout", Stream())
    print_json({"ä": "😀"})
    assert "".join(written).isascii()


def test_a_narrow_terminal_folds_only_what_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=40, record=True)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    assert tables.WIDEST_CHARACTERS > 40
    print_table(["id", "text"], [["0123456789-0123456789", "many words that go on and on"]], whole=["id"])
    assert "0123456789-0123456789" in console.export_text()

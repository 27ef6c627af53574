"""Every shell block of the README and of the tutorial does what it says, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_blocks import Block, blocks_of
from shell_session import BlockFailed, Session

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def reading_order(index: Path) -> list[Path]:
    """The pages of a part, as its table of contents lists them."""
    [contents] = [block for block in blocks_of(index) if block.language == "{toctree}"]
    return [index.parent / f"{line}.md" for line in contents.text.splitlines() if line and not line.startswith(":")]


# What is read in one terminal: the tutorial as a whole, each guide by itself.
README = [ROOT / "README.md"]
TUTORIAL = reading_order(DOCS / "tutorial" / "index.md")
GUIDES = [[page] for page in reading_order(DOCS / "how-to" / "index.md")]
SESSIONS = [README, TUTORIAL, *GUIDES]
DOCUMENTS = [document for session in SESSIONS for document in session]

# Blocks that are not executed: (document, first line of the block, why). Nothing else may be left out.
EXCEPTIONS = {
    (
        "README.md",
        "pip install -e '.[test]' && pytest",
        "it would start this very suite inside itself; .ci/run runs it, letter by letter",
    ),
}


def shell_blocks(document: Path) -> list[Block]:
    return [block for block in blocks_of(document) if block.language in ("bash", "sh", "shell", "console")]


def test_the_exceptions_are_those_that_are_listed_here() -> None:
    left_out = {
        (document.name, block.text.splitlines()[0], block.not_run)
        for document in DOCUMENTS
        for block in shell_blocks(document)
        if block.not_run is not None
    }

    assert left_out == EXCEPTIONS


def test_shell_blocks_are_called_bash() -> None:
    others = [block.place for document in DOCUMENTS for block in shell_blocks(document) if block.language != "bash"]

    assert others == []
    assert sum(len(shell_blocks(document)) for document in DOCUMENTS) > 10


def test_every_page_of_the_tutorial_and_the_guides_is_read() -> None:
    pages = {page for part in ("tutorial", "how-to") for page in (DOCS / part).glob("*.md") if page.name != "index.md"}

    assert {*DOCUMENTS} == {ROOT / "README.md", *pages}
    assert all(map(shell_blocks, (*README, *TUTORIAL)))


@pytest.mark.parametrize(
    "documents",
    [session for session in SESSIONS if any(map(shell_blocks, session))],
    ids=lambda documents: "+".join(document.relative_to(ROOT).as_posix() for document in documents),
)
def test_the_blocks_do_what_they_say(
    documents: list[Path], checkout: Path, open_session: Callable[..., Session], request: pytest.FixtureRequest
) -> None:
    blocks = [block for document in documents for block in shell_blocks(document)]
    wants_servers = any("BACKEND=distributed" in block.text for block in blocks)
    session = open_session(checkout, request.getfixturevalue("servers") if wants_servers else {})

    for document in documents:
        for block in blocks_of(document):
            session.run(block)
    session.close()


# --- the executor itself, on samples ----------------------------------------------------------------


def sample(tmp_path: Path, text: str) -> list[Block]:
    document = tmp_path / "sample.md"
    document.write_text(text, "utf-8")
    return blocks_of(document)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```bash\nfalse\ntrue\n```", "sample.md:6 ended with 1, not 0"),
        ("```bash\nfalse | true\n```", "ended with 1"),
        ("```bash\necho $NOBODY\n```", "ended with 1"),
        ("<!-- shell: exit 3 -->\n```bash\ntrue\n```", "ended with 0, not 3"),
        ('<!-- shell: shows "two" -->\n```bash\necho one\n```', "does not show ['two']"),
        ("<!-- shell: server -->\n```bash\necho hello\n```", "ended, but should serve"),
        ("<!-- shell: output -->\n```text\nzero\none…\n```", "no line 'one…'"),
    ],
)
def test_a_block_that_fails_is_noticed(
    block: str, message: str, tmp_path: Path, open_session: Callable[[Path], Session]
) -> None:
    session = open_session(tmp_path)
    parsed = sample(tmp_path, "```bash\necho zero\n```\n\n" + block)

    session.run(parsed[0])
    with pytest.raises(BlockFailed) as caught:
        session.run(parsed[1])
    assert message in str(caught.value)


def test_a_mark_that_nobody_understands_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="what does 'skip' mean"):
        sample(tmp_path, "<!-- shell: skip -->\n```bash\ntrue\n```")


def test_variables_folders_files_and_ids_go_from_block_to_block(
    tmp_path: Path, open_session: Callable[[Path], Session]
) -> None:
    session = open_session(tmp_path)
    text = """
<!-- file: below/one.txt -->
```text
one
```

```bash
NAME=two && cd below
```

<!-- shell: shows "one two" -->
```bash
echo "$(cat one.txt) $NAME" '{"execution_id": "abc"}'
```

<!-- shell: shows "the id is abc" -->
<!-- shell: exit 4 -->
```bash
echo the id is …; exit 4
```
"""

    blocks = sample(tmp_path, text)
    for block in blocks:
        session.run(block)
    assert [block.exit_code for block in blocks] == [0, 0, 0, 4]

"""What is wrong with something a user gave us: where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from .limits import MAX_NEAR_SEARCH_WORK

MAX_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `path` is where it is, as in `dag.nodes[3].config.url`; `message` what and how to mend."""

    path: str
    message: str


def join_path(base: str, segments: Iterable[str | int]) -> str:
    """`base` extended by keys and indexes: `join_path("a", ["b", 0])` is `a.b[0]`."""
    path = base
    for segment in segments:
        if isinstance(segment, int):
            path += f"[{segment}]"
        elif isinstance(segment, str) and segment.isidentifier() and len(segment) <= MAX_SHOWN_CHARACTERS:
            path += f".{segment}" if path else segment
        else:
            path += f"[{show(segment)}]"
    return path


def show(value: object) -> str:
    """A short, one-line, printable form of a value for a message."""
    text = ascii_safe(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 3] + "..."


def ascii_safe(value: object) -> str:
    """`repr` that cannot fail and never grows with the size of a container."""
    if isinstance(value, str):
        return repr(value[: MAX_SHOWN_CHARACTERS + 1])
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)} items"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def printable(text: str) -> str:
    """The text with every character that is not to be seen (controls, line breaks, marks of direction) escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the names nearest to `word`, or the empty string.

    Looks at as many names as the work allows: a comparison costs the product of the lengths, and a
    little for itself.
    """
    candidates = []
    work = 0
    for name in dict.fromkeys(known):
        if len(name) <= 3 * len(word):  # what is longer is not near
            work += len(name) * len(word) + 100
            if work > MAX_NEAR_SEARCH_WORK:
                break
            candidates.append(name)
    near = difflib.get_close_matches(word, candidates, n=3, cutoff=0.6)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(name) for name in near) + "?"

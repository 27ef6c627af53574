"""What may reach a terminal: texts of others cannot move its cursor, colour it or turn its direction."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

# Outside of these, `json.dumps` has escaped what a terminal would act on, or it is a character to be seen.
_ACTED_ON = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for people and programs alike."""
    everything = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, indent=2, ensure_ascii=not everything)
    sys.stdout.write(_ACTED_ON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")

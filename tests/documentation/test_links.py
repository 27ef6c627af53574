"""Links between the files of the repository lead somewhere. (Those inside `docs/` are checked by its build.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "DESIGN.md", "CHANGELOG.md"])
def test_links_lead_to_files(name: str) -> None:
    targets = LINK.findall((ROOT / name).read_text("utf-8"))

    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_readme_leads_to_the_documentation() -> None:
    targets = LINK.findall((ROOT / "README.md").read_text("utf-8"))

    assert {"docs/index.md", "docs/tutorial/first-workflow.md", "DESIGN.md", "CONTRIBUTING.md"} <= {*targets}

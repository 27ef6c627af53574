"""How Sphinx builds this documentation: `tox -e docs`, with warnings as errors and without the network."""

import sys
from pathlib import Path

from workflow_engine import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "Workflow orchestration engine"
author = "the contributors"
copyright = "Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "extensions.generated", "extensions.mermaid"]
exclude_patterns = ["_build", "README.md"]
nitpicky = True
# Names of the standard library and of libraries that autodoc meets in signatures: linking them would need the network.
nitpick_ignore_regex = [
    ("py:.*", r"(?!workflow_engine).*"),
    ("py:.*", r"workflow_engine\.plugins\.handler\.(Declare|ModelT)"),
]

myst_enable_extensions = ["deflist", "attrs_block"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"Workflow engine {version}"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["width.css"]
html_show_sphinx = False
pygments_style = "default"

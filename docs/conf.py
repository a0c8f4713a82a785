"""Settings of the site: `make docs` builds it in target/docs, and a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import langmeter

project = "langmeter"
author = "the langmeter authors"
version = release = langmeter.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_help",
]
exclude_patterns = ["_*"]
myst_enable_extensions = ["colon_fence", "deflist"]
# Links to a heading of a page are checked: `tokens.md#names`.
myst_heading_anchors = 4
# A fence may name the file that it is, for the tests: ```toml prices.toml
# A name in a docstring may be that of several attributes (`tokens`): it links to the first.
suppress_warnings = ["myst.header", "ref.python"]

html_theme = "furo"
html_title = f"langmeter {version}"
html_show_sphinx = False
html_copy_source = False
# For editors, at an address that does not change.
html_extra_path = [
    "reference/langmeter.schema.json",
    "reference/snapshot.schema.json",
    "reference/grafana.json",
]
# No font, script or image comes from another server.
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}

# Docstrings say `name` for code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 80

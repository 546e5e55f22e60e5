"""Sphinx configuration. `make docs` builds with -n -W: a broken reference fails the build."""

from importlib.metadata import version as installed_version

project = "outlast"
author = "the outlast authors"
project_copyright = author
release = version = installed_version("outlast")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Annotations name standard-library types; no inventory is fetched to resolve them.
nitpick_ignore_regex = [("py:.*", r"(?!outlast).*")]

html_theme = "furo"
html_title = "outlast"

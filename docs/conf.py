"""Sphinx settings. Nothing here needs the network: MathJax is one file out of an installed package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402  (a module of this folder, found through the line above)

from rankdiag import __version__  # noqa: E402

project = "rankdiag"
author = "The rankdiag developers"
copyright = "The rankdiag developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "code"

# MathJax with SVG output is a single file without fonts, so pages open from a disk as well as from a server.
_mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
if _mathjax is None or not _mathjax.submodule_search_locations:
    raise SystemExit('the docs need their tools: python -m pip install -c constraints.txt -e ".[all,dev]"')
_script = Path(_mathjax.submodule_search_locations[0]) / "static" / "mathjax" / "tex-svg.js"
mathjax_path = _script.name
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "furo"
html_title = f"rankdiag {version}"
html_static_path = ["_static", str(_script)]
html_css_files = ["extra.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"  # numpydoc's parameter lists say the types, with shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

generate.main(HERE)

"How Sphinx builds the site from what docs/prepare.py has laid out: `make docs` runs both, and nothing is fetched."

import re
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent

project = html_title = "atss_nb"
author = copyright = "The atss_nb developers"
release = re.search(r"^version = (.+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)[1]
extensions = ["myst_nb"]
python_maximum_signature_line_length = 60
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_render_markdown_format = "myst"  # what cells show may hold tables
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a lesson's solutions are two levels below its sections

html_theme = "sphinx_book_theme"
html_static_path = [str(ROOT / "docs/static")]
html_favicon = str(ROOT / "docs/static/favicon.svg")
html_css_files = ["site.css"]
html_copy_source = False
html_js_files = ["site.js"]
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "collapse_navigation": True,
    "use_fullscreen_button": False,
    "use_download_button": False,
}


def formula(writer, node) -> None:
    "A formula as MathML: browsers draw it by themselves, without a script or fonts from elsewhere."
    display = "block" if node.tagname == "math_block" else "inline"
    text = convert(node.astext(), display=display)
    writer.body.append(text if display == "inline" else f'<div class="formula" tabindex="0">{text}</div>')
    raise SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))

"The documentation: its examples run; of the built site every link, picture and name leads somewhere, on a phone, too."

import ast
import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import CHROMIUM, browser
from test_explorers_browser import View, axe, middle

import atss_nb

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_docs/html"
PAGES = sorted((ROOT / "docs/pages").rglob("*.md"))
LOOKED_AT = [
    "index",
    "start",
    "install",
    "contributing",
    "course/07_who_learns_what",
    "workshop/geometry/6_conventions",
    "commands",
]
LOOKED_AT += ["coming_from/mmrotate", "reference/index", "reference/data/detections", "glossary"]
built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no site here: make docs")
seen = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.mark.parametrize("path", [p for p in PAGES if p.parent.name == "coming_from"], ids=lambda p: p.stem)
def test_what_a_page_says_of_code_is_so(path):
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    exec("\n".join(blocks), {})
    assert any("assert" in block for block in blocks)


def built_pages() -> list[Path]:
    return [path for path in SITE.rglob("*.html") if "_static" not in path.parts]


@cache
def page(path: Path) -> str:
    "A page without its scripts."
    return re.sub(r"<script.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.S)


@cache
def anchors(path: Path) -> set[str]:
    return {unescape(name) for name in re.findall(r'\bid="([^"]+)"', page(path))}


def targets(path: Path) -> set[str]:
    "What a page links to or shows."
    return {unescape(link) for link in re.findall(r'<\w[^<>]*\s(?:href|src)="([^"]*)"', page(path))}


@built
def test_every_link_and_picture_of_the_site_is_there():
    lost = []
    for path in built_pages():
        for link in targets(path):
            file, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            target = (path.parent / unquote(file.split("?")[0])).resolve() if file else path
            if not target.exists() or (anchor and anchor not in anchors(target)):
                lost.append(f"{path.relative_to(SITE)}: {link}")
    assert lost == []


@built
def test_tables_that_cells_show_are_tables():
    assert [path for path in built_pages() if re.search(r"<p>\s*\|", page(path))] == []


@built
def test_nothing_comes_from_elsewhere():
    "Links may lead out; scripts, styles and pictures may not."
    for path in built_pages():
        text = path.read_text(encoding="utf-8")
        foreign = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"((?:https?:)?//[^\"]+)", text
        )
        assert foreign == [], path


@built
@pytest.mark.parametrize(
    "path", sorted((ROOT / "atss_nb").glob("*/*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_public_name_has_a_place(path):
    module = f"atss_nb.{path.parent.name}.{path.stem}"
    offered = re.search(r"^__all__ = (\[.*?\])", path.read_text(encoding="utf-8"), re.M | re.S)
    for name in ast.literal_eval(offered[1]) if offered and not path.stem.startswith("_") else ():
        assert f"{module}.{name}" in anchors(SITE / f"reference/{path.parent.name}/{path.stem}.html")


@built
def test_the_face_leads_to_each_of_its_names():
    text = page(SITE / "reference/index.html")
    ends = {link.rpartition(".")[2] for link in targets(SITE / "reference/index.html")}
    assert [name for name in atss_nb.__all__ if name not in ends or f">{name}<" not in text] == []


# In a browser, from disk and without a network


@pytest.fixture(scope="module")
def opened():
    with browser() as (page, watch):
        page.context.set_offline(True)
        yield page, watch
        assert watch.complaints == [] and not [url for url in watch.foreign if url.startswith("http")]


@built
@seen
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1400, True)], ids=["phone", "desk, dark"])
def test_pages_fit_and_can_be_read(opened, width, dark):
    "Nothing is wider than the window, and axe-core finds nothing serious."
    script, (view, _) = axe(), opened
    view.set_viewport_size({"width": width, "height": 900})
    view.emulate_media(color_scheme="dark" if dark else "light")
    for name in LOOKED_AT:
        view.goto((SITE / f"{name}.html").as_uri())
        assert view.evaluate("document.documentElement.scrollWidth") <= width, name
        view.add_style_tag(content="* { transition: none !important }")  # colours that are still fading in
        view.wait_for_timeout(500)
        view.evaluate(script)
        found = view.evaluate("async () => (await axe.run({preload: false})).violations")
        named = [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"]]) for v in found]
        assert [n for n in named if n[1] in ("serious", "critical")] == [], name


@built
@seen
def test_the_microscope_of_the_front_page_answers(opened):
    view, _ = opened
    view.set_viewport_size({"width": 1400, "height": 900})
    view.goto((SITE / "index.html").as_uri())
    microscope = View(view, 0)
    microscope.settle()
    aligned = "all => new Set(all.filter(c => c.offsetParent).map(c => getComputedStyle(c).textAlign)).size"
    assert view.eval_on_selector_all(".atss-explorer .panel :is(th, td):nth-child(2)", aligned) == 1
    before, asked = microscope.boxes, int(microscope.data("answers"))
    microscope.drag(middle(before[0]), 40, 20, steps=20)
    assert (microscope.boxes[0, :2] - before[0, :2]).abs().min() > 5
    assert int(microscope.data("answers")) > asked
    assert float(microscope.data("took")) < 20  # [ms] for the last one, without a network


@built
@seen
def test_the_search_finds_a_name_from_disk(opened):
    view, watch = opened
    assert watch.complaints == []
    view.goto((SITE / "search.html").as_uri() + "?q=nms_rotated")
    view.wait_for_selector("#search-results li a")
    assert "nms" in view.inner_text("#search-results")
    view.goto("about:blank")
    watch.complaints.clear()  # from disk it may not fetch the summaries of the pages that it names

"How every notebook is built: small cells, enough prose, pictures and tests, and links that lead somewhere."

import json
import random
import re
import statistics
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
LESSONS = sorted((NBS / "course").glob("*.ipynb"))
WORKSHOP = sorted((NBS / "workshop").glob("*/*.ipynb"))
MODULES = sorted(p for p in (ROOT / "atss_nb").glob("*/*.py") if p.name != "__init__.py")
PAGES = [*NOTEBOOKS, *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("data/*.md"))]


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda p: "/".join(p.relative_to(ROOT).parts[-2:]))


def cells(path: Path, kind: str) -> list[dict]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]


def prose(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return (
        "\n\n".join(cell["source"] for cell in cells(path, "markdown")) if path.suffix == ".ipynb" else text
    )


def code_lines(cell: dict) -> int:
    "Lines of code: blank lines, comments, flags, imports, documented parameters and documented fields do not count."
    lines = [line.strip() for line in cell["source"].split("\n")]
    text = re.compile(r"$|#|import |from |\) ->|\w+: .+,(\s+#.*)?$|\w+: .+  # ")
    return sum(not text.match(line) for line in lines)


def is_exported_class(cell: dict) -> bool:
    "A class stays whole."
    return cell["source"].startswith("#| export") and bool(re.search(r"^class ", cell["source"], re.M))


def is_table(cell: dict) -> bool:
    "One literal, like the options of a command: data, read line by line."
    start = re.search(r"^(#\| export\n)?_?[A-Z_]+(: .+)? = [{(\[]\n", cell["source"])
    return bool(start) and cell["source"].count("\n}") == 1


def pictures(path: Path) -> int:
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def checks(path: Path) -> int:
    "Cells that test something, besides those that are exported."
    code = [cell["source"] for cell in cells(path, "code") if not cell["source"].startswith("#| export")]
    return sum(bool(re.search(r"^\s*(assert |test_\w+\()", source, re.M)) for source in code)


def words_per_line(path: Path) -> float:
    "Display equations are not prose."
    text = (re.sub(r"\$\$.*?\$\$", "", cell["source"], flags=re.S) for cell in cells(path, "markdown"))
    return sum(len(words.split()) for words in text) / sum(map(code_lines, cells(path, "code")))


def exercises(path: Path) -> list[dict]:
    return [cell for cell in cells(path, "code") if cell["source"].startswith("#| exercise")]


# Both wings


@each(NOTEBOOKS)
def test_title_and_no_foreign_references(path):
    title = cells(path, "markdown")[0]["source"].split("\n")
    assert title[0].startswith("# ") and title[1].startswith("> "), (
        "the first cell: '# Title' and '> one line'"
    )
    assert not re.search(r"!\[[^\]]*\]\(https?:", prose(path)), "pictures come from here, not from the net"
    code = "\n".join(cell["source"] for cell in cells(path, "code"))
    assert not re.search(r"from atss_nb\S* import \*", code), "names are imported one by one"
    assert path.stat().st_size < 1_000_000
    assert len(json.dumps([cell["outputs"] for cell in cells(path, "code")])) < 500_000, (
        "outputs under 500 kB"
    )


@each(LESSONS + WORKSHOP)
def test_cells_are_small(path):
    small = [cell for cell in cells(path, "code") if not is_exported_class(cell) and not is_table(cell)]
    lines = [n for cell in small if (n := code_lines(cell))]
    assert statistics.median(lines) <= 6
    assert statistics.quantiles(lines, n=10)[8] <= 15
    for cell in small:
        assert code_lines(cell) <= 25, cell["source"][:200]


@each(LESSONS + WORKSHOP)
def test_one_notebook_one_module(path):
    code = "\n".join(cell["source"] for cell in cells(path, "code"))
    module = re.search(r"^#\| default_exp (\S+)", code, re.M)
    if re.search(r"^#\| export", code, re.M):
        assert module, "an exporting notebook names its module"
        assert path.parent.name in ("course", module[1].split(".")[0]), "the package names the folder"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: "/".join(p.parts[-2:]))
def test_modules_read_from_top_to_bottom(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


# Lessons


@each(LESSONS)
def test_a_lesson_explains_shows_checks_and_asks(path):
    assert 2.5 <= words_per_line(path) <= 8, "three to six words of prose for a line of code"
    assert pictures(path) >= len(cells(path, "code")) // 15, "a picture every few cells"
    assert checks(path) >= 6, "what a notebook says, it checks"
    assert exercises(path), "exercises, with a stub"


@pytest.mark.parametrize("lesson, after", list(zip(LESSONS, LESSONS[1:], strict=False)), ids=lambda p: p.stem)
def test_a_lesson_leads_to_the_next(lesson, after):
    assert re.search(rf"Next: \[{after.stem[:2]} [^\]]+\]\({re.escape(after.name)}\)", prose(lesson))


def is_shown(cell: dict) -> bool:
    "A cell of which a reader sees something, and that does not export: what an export does is shown below it."
    folded = cell["metadata"].get("jupyter", {}).get("source_hidden") and not cell["outputs"]
    return not folded and not re.match(r"#\| (hide|default_exp|export|slow|cuda)", cell["source"])


@each(LESSONS)
def test_half_of_the_shown_cells_have_an_output(path):
    shown = [cell for cell in cells(path, "code") if is_shown(cell)]
    assert sum(bool(cell["outputs"]) for cell in shown) >= len(shown) / 2


def stated(path: Path) -> int:
    return int(re.search(r"Reading time: (\d+) minutes", prose(path))[1])


def test_the_course_can_be_read():
    "In nine hours; the fast path in two and a half. The index says the numbers (tools/readme.py)."
    assert len(LESSONS) <= 37 and sum(map(stated, LESSONS)) <= 540
    ways = dict(re.findall(r"^- \*\*(.+)\*\* \((.+)\):", prose(NBS / "index.ipynb"), re.M))
    assert ways["Learner"] == f"{len(LESSONS)} lessons, {sum(map(stated, LESSONS))} minutes"
    assert int(ways["Fast path"].split()[2]) <= 150


@each(WORKSHOP)
def test_a_lesson_names_what_is_behind_it(path):
    "Each workshop notebook belongs to a lesson, by its title, and the lesson links back."
    number, title, file = re.search(
        r"Belongs to lesson \[(\d\d) ([^\]]+)\]\(\.\./\.\./course/(\d\d_\w+\.ipynb)\)", prose(path)
    ).groups()
    lesson = prose(NBS / "course" / file)
    assert (file[:2], lesson.split("\n")[0]) == (number, f"# {title}")
    assert f"../workshop/{path.parent.name}/{path.name}" in lesson, f"{file} does not name {path.name}"


@each(LESSONS)
def test_an_exercise_answers(path):
    """A collapsed checker stands before each stub, the stub calls it and hears that nothing is there to check; below it
    a collapsed solution of another name is rehearsed with wrong answers. What they hear is tested when the notebook runs."""
    code = cells(path, "code")
    hidden = [c["source"] for c in code if c["metadata"].get("jupyter", {}).get("source_hidden")]
    for cell in exercises(path):
        call = re.search(r"^(check_\w+)\((.+)\)$", cell["source"].split("\n")[-1])
        assert call, f"the stub ends with the call of its checker: {cell['source'][:80]}"
        check = call[1]
        assert sum(f"@checker\ndef {check}(" in source for source in hidden) == 1, f"{check}: collapsed, once"
        heard = "".join("".join(o.get("data", {}).get("text/plain", [])) for o in cell["outputs"])
        assert heard.startswith("Nothing "), f"{check}: an unfilled stub hears {heard!r}"
        rehearsed = [source for source in hidden if re.search(rf"^rehearse\(\s*{check},", source, re.M)]
        assert len(rehearsed) == 1, f"{check}: its solution is rehearsed, collapsed, once"
        for name in re.findall(r"^(?:def |class )?(my_\w+)", cell["source"], re.M):
            assert f"def {name}(" not in "\n".join(hidden), f"{name}: the solution has a name of its own"


# Workshop


@each(WORKSHOP)
def test_a_workshop_notebook_has_no_exercises(path):
    assert not exercises(path), "the workshop is read by whoever changes it"


@each(WORKSHOP)
def test_a_workshop_notebook_is_short_and_checks(path):
    assert 2 <= words_per_line(path) <= 8, "three to six words of prose for a line of code"
    assert checks(path) >= 3, "what a notebook says, it checks"
    assert re.search(r"Belongs to lesson \[\d\d [^\]]+\]\(\.\./\.\./course/\d\d_\w+\.ipynb\)", prose(path))


# Outputs


NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def shown_text(cell: dict) -> str:
    "What a cell prints or returns, without pictures."
    texts = (
        o.get("text", o.get("data", {}).get("text/plain", ""))
        for o in cell["outputs"]
        if "image/png" not in o.get("data", {})
    )
    return "".join("".join(text) for text in texts)


def alike(one: str, other: str) -> bool:
    "The same words, and numbers that differ by what another processor rounds."
    words = [NUMBER.sub("#", re.sub(r" at 0x\w+", "", text)).split() for text in (one, other)]
    numbers = [
        [float(n.replace(",", "")) for n in NUMBER.findall(text) if n.strip("+-,")] for text in (one, other)
    ]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=1e-3)


@pytest.mark.parametrize("turn", range(3))
def test_stored_outputs_come_from_the_code_of_today(turn, monkeypatch):
    "Three lessons, other ones each day, are run again; `make notebooks` refreshes what is stored."
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    from notebooks import execute, kept

    path = random.Random(date.today().toordinal()).sample(LESSONS, 3)[turn]
    fresh = [cell for cell in execute(path)["cells"] if not kept(cell)]
    stored = [cell for cell in cells(path, "code") if not kept(cell)]
    for old, new in zip(stored, fresh, strict=True):
        assert alike(shown_text(old), shown_text(new)), (
            f"{path.stem}: {old['source'][:80]}\n{shown_text(old)}\n{shown_text(new)}"
        )


@each(NOTEBOOKS)
def test_outputs_hold_no_path_of_a_machine_and_no_bar_of_progress(path):
    passing = re.compile(r"/tmp/|/home/\w|it/s\]|step/s\]|px/s\]")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in notebook["metadata"]
    assert [cell["source"] for cell in cells(path, "code") if passing.search(shown_text(cell))] == []


# Links


def links(path: Path) -> list[str]:
    "Targets of the links and pictures of a page that lie in this repository."
    text = re.sub(r"```.*?```|`[^`\n]+`", "", prose(path), flags=re.S)
    found = re.findall(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"", text)
    return [link for pair in found for link in pair if link and not re.match(r"\w+:", link)]


def anchors(path: Path) -> set[str]:
    "What can stand behind the # of a link: headings as Jupyter and as GitHub write them, and ids."
    titles = re.findall(r"^#+ (.+)$", prose(path), re.M)
    plain = [re.sub(r"[`*]", "", title).strip() for title in titles]
    github = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain]
    return {
        *github,
        *(title.replace(" ", "-") for title in plain),
        *re.findall(r"id=\"([^\"]+)\"", prose(path)),
    }


@each(PAGES)
def test_links_lead_somewhere(path):
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def listed(path: Path, after: str = "") -> list[Path]:
    "The notebooks that a page names in tables."
    rows = re.findall(r"^\|.*$", prose(path).partition(after)[2] if after else prose(path), re.M)
    found = re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(rows))
    return [(path.parent / link).resolve() for link in found]


def test_contents_list_every_notebook_once():
    assert sorted(listed(NBS / "index.ipynb", after="## All lessons")) == LESSONS + WORKSHOP


def test_the_readme_shows_the_fast_path():
    numbers = re.search(r"Fast path.*\): (.+)", prose(NBS / "index.ipynb"))[1].split(", ")
    assert [path.stem[:2] for path in listed(ROOT / "README.md")] == numbers


@each(PAGES)
def test_modules_that_are_named_exist(path):
    for name in re.findall(r"\batss_nb((?:\.\w+)+)", prose(path)):
        room, module, *_ = [*name[1:].split("."), ""]
        assert not module or (ROOT / "atss_nb" / room / f"{module}.py").exists(), f"there is no atss_nb{name}"
    for module, names in re.findall(r"^ *from atss_nb\.([\w.]+) import ([\w, ]+)$", prose(path), re.M):
        source = (ROOT / "atss_nb" / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        for name in re.split(r", *", names):
            assert re.search(rf"\b{name}\b", source), f"{module} has no {name}"

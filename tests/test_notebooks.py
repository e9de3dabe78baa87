"How every notebook is built: small cells, enough prose, pictures and tests, no foreign references."

import json
import re
import statistics
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parent.parent / "nbs"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
LESSONS = [p for p in NOTEBOOKS if p.name != "index.ipynb"]
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
by_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


def cells(path: Path, kind: str) -> list[dict]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]


def code_lines(cell: dict) -> int:
    "Lines of code: blank lines, comments, flags, imports, documented parameters and documented fields do not count."
    lines = [line.strip() for line in cell["source"].split("\n")]
    text = re.compile(r"$|#|import |from |\) ->|\w+: .+,(\s+#.*)?$|\w+: .+ = .+  # ")
    return sum(not text.match(line) for line in lines)


def is_class(cell: dict) -> bool:
    return bool(re.search(r"^class ", cell["source"], re.M))


def is_table(cell: dict) -> bool:
    "One literal, like the options of a command: data, read line by line."
    return (
        bool(re.search(r"^(#\| export\n)?_?[A-Z_]+ = [{(\[]\n", cell["source"]))
        and cell["source"].count("\n}") == 1
    )


def pictures(path: Path) -> int:
    return sum(
        "image/png" in str(output.keys() | output.get("data", {}).keys())
        for cell in cells(path, "code")
        for output in cell["outputs"]
    )


@by_name
def test_title_and_no_foreign_references(path):
    title = cells(path, "markdown")[0]["source"].split("\n")
    assert title[0].startswith("# ") and title[1].startswith("> "), (
        "the first cell is '# Title' and '> one line'"
    )
    prose = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    assert not re.search(r"!\[[^\]]*\]\(https?:", prose), (
        "pictures come from the repository, not from the net"
    )
    code = "\n".join(cell["source"] for cell in cells(path, "code"))
    assert not re.search(r"from atss_nb\S* import \*", code), "names are imported one by one"
    assert path.stat().st_size < 1_000_000
    assert len(json.dumps([cell["outputs"] for cell in cells(path, "code")])) < 500_000, (
        "stored outputs under 500 kB"
    )


@by_lesson
def test_cells_are_small(path):
    code = cells(path, "code")
    lines = [n for cell in code if (n := code_lines(cell)) and not is_class(cell) and not is_table(cell)]
    assert statistics.median(lines) <= 6
    assert statistics.quantiles(lines, n=10)[8] <= 15
    for cell in code:
        assert code_lines(cell) <= (40 if is_class(cell) or is_table(cell) else 25), cell["source"][:200]


@by_lesson
def test_prose_pictures_and_tests(path):
    code = cells(path, "code")
    words = sum(len(cell["source"].split()) for cell in cells(path, "markdown"))
    assert 2.5 <= words / sum(map(code_lines, code)) <= 8, "three to six words of prose for a line of code"
    checks = [
        cell
        for cell in code
        if not cell["source"].startswith("#| export")
        and re.search(r"^\s*(assert |test_\w+\()", cell["source"], re.M)
    ]
    assert len(checks) >= (6 if "course" in path.parts else 3), "what a notebook says, it checks"
    if "course" in path.parts:  # a workshop notebook draws and asks where that shows something
        assert pictures(path) >= len(code) // 15, "a picture every few cells"
        assert any("#| exercise" in cell["source"] for cell in code), "exercises, with a stub"


@by_lesson
def test_one_notebook_one_module(path):
    exported = [cell for cell in cells(path, "code") if cell["source"].startswith("#| export")]
    module = re.search(r"#\| default_exp (\S+)", "\n".join(cell["source"] for cell in cells(path, "code")))
    if exported:
        assert module, "an exporting notebook names its module"
        file = NBS.parent / "atss_nb" / (module[1].replace(".", "/") + ".py")
        assert len(file.read_text(encoding="utf-8").split("\n")) <= 330, (
            "modules stay under 300 lines of code"
        )

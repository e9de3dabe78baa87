"""Lay out what Sphinx reads: `python docs/prepare.py` fills _docs/source, and leaves alone what has not changed.

Pages of prose come from docs/pages; the course and the workshop are the notebooks themselves with the outputs that they
hold; sections of nbs/index.ipynb become pages; the reference comes from the docstrings and from the parser of the command
(docs/reference.py). Nothing is executed but the drawing of the three explorers that need no Python.
"""

import json
import re
from pathlib import Path

from reference import ROOMS, command_page, reference_pages

ROOT = Path(__file__).resolve().parent.parent
NBS, SOURCE = ROOT / "nbs", ROOT / "_docs/source"
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel
LIVE = ("microscope", "walk", "dial")  # explorers that need none
# Page -> its title, and the sections of nbs/index.ipynb that it is made of.
SECTIONS = {
    "start": ("Getting started", ["Install", "First detections", "See it learn", "Your own images", "Measured", "Why another one"]),
    "course": ("The course", ["How to read it", "All lessons"]),
    "workshop": ("The workshop", ["The workshop"]),
    "result_table": ("The result table", ["The result table", "DOTA, honestly"]),
}  # fmt: skip
PAPERS = {
    "install": "INSTALL.md",
    "data": "data/README.md",
    "contributing": "CONTRIBUTING.md",
    "architecture": "ARCHITECTURE.md",
    "changelog": "CHANGELOG.md",
    "security": "SECURITY.md",
    "conduct": "CODE_OF_CONDUCT.md",
}
MOVED = {
    "index.ipynb#Glossary": "glossary.md",
    "index.ipynb#The-result-table": "result_table.ipynb",
    "index.ipynb)": "course.ipynb)",
    "](#All-lessons)": "](course.ipynb)",
    **{f"](../{path}": f"]({name}.md" for name, path in PAPERS.items()},
}


def linked(text: str) -> str:
    "Prose of a notebook: links lead to where things stand in the site, and stills of explorers come to life."
    for old, new in MOVED.items():
        text = text.replace(old, new)
    live = rf"!\[[^\]]*\]\((?:\.\./)+images/explorer_({'|'.join(LIVE)})\.png\)"
    return re.sub(live, lambda still: f"```{{raw}} html\n:file: {SOURCE}/live/{still[1]}.html\n```", text)


def shown(cell: dict) -> dict | None:
    "A cell as the site shows it: without flags, folded where Jupyter folds it; None for plumbing."
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return {"cell_type": "markdown", "metadata": {}, "source": linked(source)}
    flags = {line[2:].split()[0] for line in source.split("\n") if line.startswith("#|")}
    code = "\n".join(line for line in source.split("\n") if not line.startswith("#|")).strip()
    outputs = [o for o in cell["outputs"] if WIDGET not in o.get("data", {}) and o.get("name") != "stderr"]
    if not code or ("hide" in flags and not outputs):
        return None
    fold = ["hide-input"] if cell["metadata"].get("jupyter", {}).get("source_hidden") else []
    tags = ["remove-input"] if flags & {"echo:", "hide"} else fold
    made = {"cell_type": "code", "execution_count": None, "metadata": {"tags": tags}}
    return made | {"source": code, "outputs": outputs}


def folded(cell: dict) -> bool:
    return "hide-input" in cell["metadata"].get("tags", [])


def notebook(cells: list[dict]) -> str:
    "Cells as a file; neighbours that are folded become one."
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    kept: list[dict] = []
    for cell in filter(None, map(shown, cells)):
        if kept and all(folded(one) and not one["outputs"] for one in (kept[-1], cell)):
            kept[-1]["source"] += f"\n\n\n{cell['source']}"
        else:
            kept.append(cell)
    return json.dumps({"cells": kept, "metadata": kernel, "nbformat": 4, "nbformat_minor": 4})


def cells_of(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def prose(text: str) -> dict:
    return {"cell_type": "markdown", "source": text}


def sections() -> dict[str, list[dict]]:
    "The cells of the index, by the heading that they stand under."
    found: dict[str, list[dict]] = {"": []}
    for cell in cells_of(NBS / "index.ipynb"):
        source = "".join(cell["source"])
        for part in (
            re.split(r"^(?=## )", source, flags=re.M) if cell["cell_type"] == "markdown" else [source]
        ):
            if part.startswith("## "):
                found[part.split("\n")[0][3:]] = []
            found[list(found)[-1]].append(cell | {"source": part})
    return found


def toctree(folders: str) -> dict:
    "Notebooks in the sidebar; lessons with their number."
    lines = []
    for path in sorted(
        NBS.glob(f"{folders}/*.ipynb"), key=lambda p: ([*ROOMS, "course"].index(p.parent.name), p.stem)
    ):
        title = "".join(cells_of(path)[0]["source"]).split("\n")[0][2:]
        number = f"{path.stem[:2]} " if folders == "course" else ""
        lines.append(f"{number}{title} <{path.relative_to(NBS).with_suffix('').as_posix()}>")
    return prose("\n".join(["```{toctree}", ":hidden:", "", *lines, "```"]))


def section_pages() -> dict[str, str]:
    "Sections of the index, each on the page where a reader of the site looks for it."
    found, pages = sections(), {}
    ends = {"course": [toctree("course")], "workshop": [toctree("workshop/*")]}
    for name, (title, parts) in SECTIONS.items():
        cells = [c | {"source": c["source"].removeprefix(f"## {title}\n")} for p in parts for c in found[p]]
        pages[f"{name}.ipynb"] = notebook([prose(f"# {title}"), *cells, *ends.get(name, [])])
    words = linked("".join(cell["source"] for cell in found["Glossary"]))
    return pages | {"glossary.md": glossary(words)}


def glossary(table: str) -> str:
    "The table of words as a glossary: each word can be linked to, and the search knows it."
    rows = re.findall(r"^\| ((?!word|-).+?) \| (.+?) \|$", table, re.M)
    terms = "\n\n".join("\n".join([*words.replace("`", "").split(", "), f"  {text}"]) for words, text in rows)
    return f"# Glossary\n\n```{{glossary}}\n{terms}\n```\n"


def paper(path: Path) -> str:
    "A file of the repository as a page."
    text = re.sub(r"\]\((?:\.\./)?nbs/", "](", path.read_text(encoding="utf-8"))
    for name, other in PAPERS.items():
        text = text.replace(f"]({other}", f"]({name}.md")
    return text.replace("[`sample/`](sample)", "`data/sample`")


def live_pages() -> dict[str, str]:
    "The explorers that answer without Python, each as a piece of a page."
    from atss_nb.explore.page import make_explorer
    from atss_nb.explore.standalone import explorer_fragment

    return {f"live/{name}.html": explorer_fragment(make_explorer(name)) for name in LIVE}


def pages() -> dict[str, str | bytes]:
    "All that Sphinx reads: place below _docs/source -> content."
    own = {
        p.relative_to(ROOT / "docs/pages").as_posix(): p.read_bytes()
        for p in (ROOT / "docs/pages").rglob("*.md")
    }
    lessons = [p for p in NBS.glob("*/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    books = {p.relative_to(NBS).as_posix(): notebook(cells_of(p)) for p in lessons}
    images = {p.relative_to(NBS).as_posix(): p.read_bytes() for p in NBS.glob("images/*")}
    papers = {f"{name}.md": paper(ROOT / path) for name, path in PAPERS.items()}
    made = section_pages() | live_pages() | reference_pages() | {"commands.md": command_page()}
    return own | books | images | papers | made


def main() -> None:
    contents = pages()
    for path in [p for p in SOURCE.rglob("*") if p.is_file()]:
        if path.relative_to(SOURCE).as_posix() not in contents:
            path.unlink()
    for name, content in contents.items():
        path, data = SOURCE / name, content.encode() if isinstance(content, str) else content
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


if __name__ == "__main__":
    main()

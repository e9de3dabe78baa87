"""The contents in nbs/index.ipynb from the notebooks, and README.md from nbs/index.ipynb.

The tables of the index list the fast path, every lesson and every workshop notebook by its title; what a package is for
is said in the table itself. README.md takes prose, code and text outputs, and pictures by their file; it ends where the
index turns to those who read the notebooks.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
INDEX = NBS / "index.ipynb"
END = "## How to read it"
HEADER = "<!-- Generated from nbs/index.ipynb by tools/readme.py: edit the notebook. -->\n"


def output_text(output: dict) -> str:
    "The Markdown of one stored output; pictures are linked from the prose, so they are left out here."
    data = output.get("data", {})
    if "text/markdown" in data:
        return "".join(data["text/markdown"]) + "\n"
    text = "".join(output.get("text", data.get("text/plain", [])))
    if not text or "image/png" in data:
        return ""
    return "\n".join("    " + line for line in text.rstrip().split("\n")) + "\n"


def cell_text(cell: dict) -> list[str]:
    "The Markdown blocks of one cell, links seen from the root; cells that start with `#| hide` give none."
    lines = "".join(cell["source"]).strip().split("\n")
    flags = [line for line in lines if line.startswith("#|")]
    code = "\n".join(line for line in lines if not line.startswith("#|"))
    if any(flag.split()[1] == "hide" for flag in flags) or not code.strip():
        return []
    if cell["cell_type"] == "markdown":
        return [re.sub(r"\]\((?!\w+:|#)(\.\./)?", lambda link: "](" if link[1] else "](nbs/", code) + "\n"]
    shown = [] if any("echo: false" in flag for flag in flags) else [f"```python\n{code}\n```\n"]
    return shown + [text for output in cell["outputs"] if (text := output_text(output))]


def link(path: Path) -> tuple[str, str]:
    "A link from the index to a notebook, and the notebook's one line."
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    title, line = (text.lstrip("#> ") for text in first.split("\n")[:2])
    return f"[{title}]({path.relative_to(NBS).as_posix()})", line


def minutes(path: Path) -> int:
    "The reading time that a lesson states."
    return int(re.search(r"Reading time: (\d+) minutes", path.read_text(encoding="utf-8"))[1])


def paths(text: str) -> str:
    "Prose of the index with the number of lessons and the minutes of each way through them."
    lessons = {path.stem[:2]: minutes(path) for path in sorted(NBS.glob("course/*.ipynb"))}

    def count(way: re.Match) -> str:
        numbers = re.findall(r"\b\d\d\b", way[3]) or lessons
        return f"{way[1]} ({len(numbers)} lessons, {sum(lessons[n] for n in numbers)} minutes):{way[3]}"

    return re.sub(r"^(- \*\*.+\*\*) \((.+)\):(.+)$", count, text, flags=re.M)


def lesson_rows(text: str, fast: set[str]) -> str:
    "Prose of the index with today's lessons in its table: all of them, or those of the fast path; and with their number."
    lessons = {path.stem[:2]: (*link(path), minutes(path)) for path in sorted(NBS.glob("course/*.ipynb"))}
    short = not text.startswith("## All lessons")
    rows = "".join(
        f"| {n}{' *' if n in fast and not short else ''} | {title} | {time} | {line} |\n"
        for n, (title, line, time) in lessons.items()
        if n in fast or not short
    )
    text = re.sub(r"(^\| \d\d.*\n)+", lambda _: rows, text, flags=re.M)
    return re.sub(r"\b\d+ lessons", f"{len(lessons)} lessons", text)


def workshop_rows(text: str) -> str:
    "Prose of the index with today's workshop notebooks in its table."
    purposes = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.M))
    packages: dict[str, list[str]] = {name: [] for name in purposes}
    for path in sorted(NBS.glob("workshop/*/*.ipynb")):
        packages.setdefault(path.parent.name, []).append(link(path)[0])
    rows = "".join(
        f"| `{p}` | {purposes.get(p, '')} | {', '.join(links)} |\n" for p, links in packages.items()
    )
    return re.sub(r"(^\| `\w+` \|.*\n)+", lambda _: rows, text, flags=re.M)


def main() -> None:
    notebook = json.loads(INDEX.read_text(encoding="utf-8"))
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    end = next(i for i, text in enumerate(texts) if text.startswith(END))
    fast = set(re.findall(r"\d\d", re.search(r"Fast path.*\):(.*)", texts[end])[1]))
    for cell, text in zip(notebook["cells"], texts, strict=True):
        if text.startswith(END):
            text = paths(text)
        elif text.startswith(("## The course", "## All lessons", "## Why")):
            text = lesson_rows(text, fast)
        if "\n## The workshop\n" in text:
            text = workshop_rows(text)
        cell["source"] = text.splitlines(keepends=True)
    INDEX.write_text(
        json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    blocks = [block for cell in notebook["cells"][:end] for block in cell_text(cell)]
    (ROOT / "README.md").write_text("\n".join([HEADER, *blocks]), encoding="utf-8")


if __name__ == "__main__":
    main()

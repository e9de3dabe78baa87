"README.md from nbs/index.ipynb: prose, code and text outputs; pictures by their file. `--check` only compares."

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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


def readme() -> str:
    notebook = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    return "\n".join([HEADER, *(block for cell in notebook["cells"] for block in cell_text(cell))])


if __name__ == "__main__":
    target = ROOT / "README.md"
    if "--check" in sys.argv:
        sys.exit(
            target.read_text(encoding="utf-8") != readme()
            and "README.md is older than nbs/index.ipynb: run make format"
        )
    target.write_text(readme(), encoding="utf-8")

"""The reference, as Markdown for Sphinx: the public names from their docstrings, the command from its parser.

Modules are read, not imported. Their docstrings have the sections Args, Attributes and Returns (tools/docstrings.py);
a name of the package between backticks becomes a link.
"""

import argparse
import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "atss_nb"
MODULES = sorted(path for path in PACKAGE.glob("*/*.py") if not path.stem.startswith("_"))
# The packages from the bottom to the top, and what each holds.
ROOMS = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.M))
SECTION = re.compile(r"^(Args|Attributes|Returns):\n((?:    .*(?:\n|$)|\n)+)", re.M)
ENTRY = re.compile(r"^(\*{0,2}\w+): (.*(?:\n +.*)*)", re.M)


def dotted(path: Path) -> str:
    return f"atss_nb.{path.parent.name}.{path.stem}"


def public(tree: ast.Module) -> dict[str, ast.stmt]:
    "What a module offers, in the order of its lines."
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        found |= {n: node for t in targets if (n := getattr(t, "name", getattr(t, "id", "")))}
    offered = ast.literal_eval(found["__all__"].value)
    return {name: node for name, node in found.items() if name in offered}


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
PLACES = {name: f"{dotted(path)}.{name}" for path, tree in TREES.items() for name in public(tree)}
PLACES |= {"recipes": "atss_nb.recipes.recipes"}


def linked(name: str) -> str:
    return f"{{py:obj}}`{name} <{PLACES[name]}>`" if name in PLACES else f"`{name}`"


def marked(text: str) -> str:
    "Words of a docstring as Markdown: its signs are signs, and names of the package are links."
    parts = re.split(r"`([^`\n]+)`", text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = map(linked, parts[1::2])
    return "".join(parts)


def prose(text: str) -> str:
    "A docstring without its sections; what is indented stays as it is."
    parts = re.sub(r":\n(?=    )", ":\n\n", SECTION.sub("", text).strip()).split("\n\n")
    return "\n\n".join(part if part.startswith("    ") else marked(part) for part in parts)


def fields(text: str, attribute: str = "ivar") -> list[str]:
    "The sections of a docstring as a list of fields."
    lines = []
    for title, body in SECTION.findall(text):
        body = textwrap.dedent(body).strip()
        if title == "Returns":
            lines.append(f":returns: {marked(' '.join(body.split()))}")
        else:
            kind = "param" if title == "Args" else attribute
            entries = ENTRY.findall(body)
            lines += [f":{kind} {marked(name)}: {marked(' '.join(words.split()))}" for name, words in entries]
    return lines


def directive(kind: str, signature: str, body: list[str], outer: bool = False) -> str:
    "A name and what is said of it; an outer one may hold others."
    fence = "::::" if outer else ":::"
    return "\n".join([f"{fence}{{py:{kind}}} {signature}", *body, fence, ""])


def parameters(node: ast.FunctionDef, bound: bool) -> str:
    "As in the source, without `self`."
    given = ast.parse(f"def f({ast.unparse(node.args)}): ...").body[0].args
    if bound:
        given.args.pop(0)
    return ast.unparse(given)


def decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}


def function(node: ast.FunctionDef, kind: str = "function") -> str:
    text, marks = ast.get_docstring(node) or "", decorators(node)
    result = ast.unparse(node.returns) if node.returns else ""
    body = ["", prose(text), "", *fields(text)]
    if marks & {"property", "cached_property"}:
        return directive("property", node.name, [f":type: {result}"] * bool(result) + body)
    given = parameters(node, kind == "method" and "staticmethod" not in marks)
    options = [f":{mark}:" for mark in sorted(marks & {"classmethod", "staticmethod"})]
    signature = f"{node.name}({given})" + (f" -> {result}" if result else "")
    return directive(kind, signature, options + body)


def record_field(node: ast.AnnAssign) -> str:
    value = ast.unparse(node.value) if node.value else ""
    shown = f" = {'...' if value.startswith('field(') else value}" if value else ""
    return f"{node.target.id}: {ast.unparse(node.annotation)}{shown}"


def fields_of(node: ast.ClassDef) -> list[ast.AnnAssign]:
    "The parameters of a class that is a record."
    if not (decorators(node) & {"dataclass", "record"} or "NamedTuple" in map(ast.unparse, node.bases)):
        return []
    given = [n for n in node.body if isinstance(n, ast.AnnAssign) and not n.target.id.startswith("_")]
    return [n for n in given if "ClassVar" not in ast.unparse(n.annotation)]


def documented(method: ast.stmt) -> bool:
    if not isinstance(method, ast.FunctionDef) or any(d.endswith(".setter") for d in decorators(method)):
        return False
    return not method.name.startswith("_") or (method.name == "__call__" and bool(ast.get_docstring(method)))


def class_(node: ast.ClassDef) -> str:
    text, given = ast.get_docstring(node) or "", fields_of(node)
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    called = parameters(init, True) if init else ", ".join(map(record_field, given))
    own = fields(ast.get_docstring(init) or "") if init else []
    body = ["", prose(text), "", *fields(text, "param" if given else "ivar"), *own, ""]
    methods = [function(n, "method") for n in node.body if documented(n)]
    return directive("class", f"{node.name}({called})" if called else node.name, body + methods, outer=True)


def constant(name: str, node: ast.Assign | ast.AnnAssign, lines: list[str]) -> str:
    "A constant with its value, if that is short, and with the comment above or behind it."
    number = node.lineno - 1
    above = re.findall(r"^# (.+)$", lines[number - 1])
    behind = re.findall(r"  # (.+)$", lines[number])
    value = ast.unparse(node.value)
    options = [f":value: {value}"] if len(value) < 90 else []
    return directive("data", name, [*options, "", marked(" ".join(above or behind))])


def described(name: str, node: ast.stmt, lines: list[str]) -> str:
    if isinstance(node, ast.FunctionDef):
        return function(node)
    return class_(node) if isinstance(node, ast.ClassDef) else constant(name, node, lines)


def summary(path: Path) -> str:
    return marked(ast.get_docstring(TREES[path]).split("\n")[0])


def module_page(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").split("\n")
    notebook = re.search(r"File to edit: .*nbs/(.+\.ipynb)", "\n".join(lines))[1]
    head = [f"# {path.stem}", f":::{{py:module}} {dotted(path)}\n:::", f"{summary(path)}."]
    head += [f"`from {dotted(path)} import ...` · explained and tested in [its notebook](../../{notebook})"]
    parts = [described(name, node, lines) for name, node in public(TREES[path]).items()]
    return "\n\n".join([*head, *parts])


def toctree(names: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```", ""])


def table(head: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {head} | |", "|---|---|", *(f"| {name} | {what} |" for name, what in rows), ""])


def package_page(room: str) -> str:
    paths = [path for path in MODULES if path.parent.name == room]
    rows = [(f"[{path.stem}]({path.stem}.md)", summary(path)) for path in paths]
    return "\n".join(
        [f"# {room}\n", f"{ROOMS[room]}.\n", table("module", rows), toctree([p.stem for p in paths])]
    )


def face_page() -> str:
    "The docstring of the package, which is a table of contents, with links."
    text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")))
    parts = ["# Reference\n", "What `from atss_nb import ...` offers; below it, the packages.\n"]
    for title, body in re.findall(r"^(\w+)\n((?:    \S.*\n)+)", text + "\n", re.M):
        found = re.findall(r"^    (\S.*?)  +(.+)$", body, re.M)
        rows = [(", ".join(map(linked, names.split(", "))), marked(what)) for names, what in found]
        parts += [f"## {title}\n", table("name", rows)]
    rows = [(f"[{room}]({room}/index.md)", what) for room, what in ROOMS.items()]
    return "\n".join(
        [*parts, "## Packages\n", table("package", rows), toctree([f"{r}/index" for r in ROOMS])]
    )


def reference_pages() -> dict[str, str]:
    "A page for the face, one for each package, one for each module."
    pages = {"reference/index.md": face_page()} | {f"reference/{r}/index.md": package_page(r) for r in ROOMS}
    return pages | {f"reference/{p.parent.name}/{p.stem}.md": module_page(p) for p in MODULES}


def option(action: argparse.Action) -> str:
    "One option of a command, or one of its words."
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    named = ", ".join(f"{name}{value}" for name in action.option_strings) or action.metavar or action.dest
    choices = f" One of {', '.join(f'`{one}`' for one in action.choices)}." if action.choices else ""
    return f":::{{option}} {named}\n{marked(action.help or '')}.{choices}\n:::\n"


def command_page() -> str:
    from atss_nb.cli.main import command_parser

    kinds = (a.choices for a in command_parser()._actions if isinstance(a, argparse._SubParsersAction))
    commands: dict[str, argparse.ArgumentParser] = next(kinds)
    parts = ["# Commands\n", "`atss COMMAND --help` says the same in a terminal.\n"]
    for name, parser in commands.items():
        parts += [f"## {name}\n", f"{marked(parser.description)}\n"]
        parts += [f"```console\n$ {parser.epilog.removeprefix('example: ')}\n```\n"]
        parts += [f":::{{program}} atss {name}\n:::\n"]
        parts += [option(action) for action in parser._actions if action.dest != "help"]
    return "\n".join(parts)

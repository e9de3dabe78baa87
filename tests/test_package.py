"The house: what may import what, in files and in functions, and what importing costs."

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "atss_nb"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
# Each package with those it may import besides itself: every arrow points down.
BELOW = {
    "core": "",
    "geometry": "core",
    "samples": "core geometry",
    "model": "core geometry samples",
    "data": "core geometry",
    "scenes": "core geometry data",
    "tiles": "core geometry data",
    "evaluation": "core geometry data tiles",
    "training": "core geometry samples model data evaluation",
    "inference": "core geometry samples model data tiles evaluation training",
    "recipes": "core geometry samples model data scenes tiles evaluation training inference",
    "plots": "core geometry samples data evaluation inference",
    "explore": "core geometry samples model data scenes tiles evaluation inference plots",
    "cli": "core geometry samples model data scenes tiles evaluation training inference recipes plots explore",
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


NAMES = {name_of(path): path for path in MODULES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST, package: tuple[str, ...] = ()) -> set[str]:
    "Absolute names of all that code imports, at the top and inside functions; `from a import b` gives a and a.b."
    sources = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            sources |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *filter(None, [node.module])])
            sources |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return sources


def imports(path: Path) -> set[str]:
    "What a module imports."
    return imported(tree_of(path), ("atss_nb", *path.relative_to(PACKAGE).parts[:-1]))


def arrows(path: Path) -> set[str]:
    "The modules of this package that a module imports."
    return {name.removeprefix("atss_nb.") for name in imports(path)} & NAMES.keys()


GRAPH = {name: arrows(path) for name, path in NAMES.items()}
by_module = pytest.mark.parametrize("name", NAMES)


def circle(graph: dict[str, set[str]]) -> list[str]:
    "Modules that import each other in a ring, or nothing."
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        ring = next(filter(None, (visit(other, [*way, name]) for other in sorted(graph[name]))), [])
        done.add(name)
        return ring

    return next(filter(None, (visit(name, []) for name in graph)), [])


@by_module
def test_arrows_point_down(name):
    room = name.split(".")[0]
    upward = {other for other in GRAPH[name] if other.split(".")[0] not in {room, *BELOW[room].split()}}
    assert not upward, (
        f"{name} imports {', '.join(sorted(upward))}; {room} may import {BELOW[room] or 'nothing'}"
    )


def test_packages_have_an_order():
    order = list(BELOW)
    for room, below in BELOW.items():
        assert all(order.index(other) < order.index(room) for other in below.split()), room


def test_no_file_is_in_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle(GRAPH) == []


@by_module
def test_no_notebook_tools_and_no_plots_outside_plots(name):
    foreign = {used.split(".")[0] for used in imports(NAMES[name])}
    assert not foreign & {"nbdev", "fastcore"}
    if name.split(".")[0] not in ("plots", "explore"):
        assert not foreign & {"matplotlib", "ipywidgets", "anywidget", "IPython"}


def test_no_room_is_too_large():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in NAMES.items()}
    for room in BELOW:
        share = sum(n for name, n in lines.items() if name.startswith(room + ".")) / sum(lines.values())
        assert share <= 0.2, f"{room} holds {share:.0%} of all lines"


def test_import_is_light():
    code = "import sys, atss_nb; print([m for m in ('torch', 'numba', 'numpy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CHANGES = re.findall(r"^\| (the [^|]+) \| `(atss_nb/[^`]+)` \| `(nbs/[^`]+)` \|$", PAGE, re.M)
WHERE = {  # what the code of each answer must hold
    "the label format of HRSC2016": "def read_hrsc",
    "the learning-rate schedule": "def lr_factor",
    "the color of a drawn box": "def class_style",
    "the integral of average precision": "def average_precision",
    "the search for the k nearest anchors": "def nearest_anchors",
}


def test_the_picture_and_the_table_of_packages_agree_with_the_code():
    subprocess.run([sys.executable, ROOT / "tools/architecture.py", "--check"], check=True)


@pytest.mark.parametrize("question", WHERE)
def test_a_stranger_finds_where_to_change(question):
    module, notebook = {what: files for what, *files in CHANGES}[question]
    code = (ROOT / module).read_text(encoding="utf-8")
    assert WHERE[question] in code
    assert notebook in code.split("File to edit: ")[1].split("\n")[0]


# Public names


def exported(path: Path) -> list[str]:
    "The public names of a module."
    listed = re.search(r"^__all__ = (\[.*?\])", path.read_text(encoding="utf-8"), re.M | re.S)
    return ast.literal_eval(listed[1]) if listed else []


def identifiers(*trees: ast.AST) -> set[str]:
    "The names in code, and in its strings, as `getattr` and `pkgutil.resolve_name` take them."
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                names.add(name)
            case ast.Constant(value=str(text)):
                names |= {text.partition(":")[0], re.split("[.:]", text)[-1]}
    return names


def demonstration(notebook: Path) -> ast.Module:
    "What a notebook does besides what it exports."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = "\n".join(source for source in code if not source.startswith("#| export"))
    return ast.parse(re.sub(r"^\s*[%!].*$", "", shown, flags=re.M))


@cache
def users() -> dict[Path, tuple[set[str], set[str]]]:
    "Each file that may use the package, with what it imports and the names in it."
    trees = {path: demonstration(path) for path in (ROOT / "nbs").rglob("*.ipynb")}
    trees |= {
        path: tree_of(path)
        for room in ("tests", "bench", "tools", "docs")
        for path in (ROOT / room).rglob("*.py")
    }
    own = {path: (imports(path), identifiers(tree_of(path))) for path in [*MODULES, PACKAGE / "__init__.pyi"]}
    return own | {path: (imported(tree), identifiers(tree)) for path, tree in trees.items()}


def handed_out(path: Path, name: str) -> bool:
    "Whether the rest of a module names one of its types: it makes such objects, or raises such errors."
    body = tree_of(path).body
    types = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
    rest = [node for node in body if node not in types and not ast.unparse(node).startswith("__all__")]
    return bool(types) and name in identifiers(*rest)


def test_a_public_name_means_one_thing():
    homes: dict[str, list[str]] = {}
    for module, path in NAMES.items():
        for name in exported(path):
            homes.setdefault(name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


@by_module
def test_what_nobody_else_uses_is_private(name):
    path, notebook = NAMES[name], None
    if source := re.search(r"File to edit: (\S+)\.\n", path.read_text(encoding="utf-8")):
        notebook = (path.parent / source[1]).resolve()
    known = set()
    for user, (sources, names) in users().items():
        if user != path and (f"atss_nb.{name}" in sources | names or user == notebook):
            known |= names
    assert [one for one in exported(path) if one not in known and not handed_out(path, one)] == []


def is_number(value: ast.expr) -> bool:
    "Numbers alone, or tuples and sums of them."
    parts = {type(part) for part in ast.walk(value)} - {ast.Load}
    kinds = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.unaryop, ast.operator)
    numbers = [part.value for part in ast.walk(value) if isinstance(part, ast.Constant)]
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    return bool(numbers) and plain and all(issubclass(kind, kinds) for kind in parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_number_with_a_name_says_why_this_one(path):
    lines = path.read_text().splitlines()
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and is_number(node.value):
            own = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            above = lines[node.lineno - 2].startswith("#")
            assert above or "#" in own.replace("# fmt: skip", ""), own

"The house: what may import what, and what importing costs."

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p for p in (ROOT / "atss_nb").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
ALLOWED = {
    "atss_nb": set(),  # files.py: how all rooms write
    "geometry": {"geometry"},
    "samples": {"geometry", "samples"},
    "model": {"geometry", "samples", "model"},
    "data": {"geometry", "data"},
    "run": {"geometry", "samples", "model", "data", "run"},
    "explore": {"geometry", "samples", "model", "data", "run", "explore"},
}

SHOWING = ("cli", "commands_", "demo", "results")  # these draw, when asked to


def imports(path: Path) -> set[str]:
    "Absolute names of the modules that a module imports."
    package = ("atss_nb", *path.relative_to(ROOT / "atss_nb").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.add(".".join([*base, *filter(None, [node.module])]))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: "/".join(p.parts[-2:]))
def test_arrows_point_down(path):
    room = path.parent.name
    allowed = ALLOWED[room] | {"files"} | ({"explore"} if path.name.startswith(SHOWING) else set())
    used = {name.split(".")[1] for name in imports(path) if name.startswith("atss_nb.")}
    assert used <= allowed, f"{room} imports {used - allowed}"
    if room == "explore":
        assert "atss_nb.run.training" not in imports(path)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: "/".join(p.parts[-2:]))
def test_no_notebook_tools_and_no_plots_outside_explore(path):
    foreign = {name.split(".")[0] for name in imports(path)}
    assert not foreign & {"nbdev", "fastcore"}
    if path.parent.name != "explore":
        assert not foreign & {"matplotlib", "ipywidgets", "IPython"}


def test_import_is_light():
    code = "import sys, atss_nb; print([m for m in ('torch', 'numba', 'numpy', 'matplotlib') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )

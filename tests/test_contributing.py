"The page for those who change something: its worked example is run, and what it names is there."

import re
from pathlib import Path

from atss_nb.explore import microscope
from atss_nb.model import build
from atss_nb.model.build import build_assigner
from atss_nb.model.config import ModelConfig

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_the_worked_example_runs(monkeypatch):
    monkeypatch.setattr(build, "_ASSIGNERS", dict(build._ASSIGNERS))
    monkeypatch.setattr(microscope, "_RULES", dict(microscope._RULES))
    names: dict = {"__name__": "dynamic"}
    for block in BLOCKS:
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    monkeypatch.setattr(ModelConfig, "assigner", "dynamic")  # what the line in its list does
    assert isinstance(build_assigner(ModelConfig), names["DynamicK"])


def test_the_example_is_short():
    rule = BLOCKS[0][BLOCKS[0].index("@dataclass") :]
    assert len(rule.strip().splitlines()) <= 30


def test_targets_and_files_that_are_named_exist():
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`make ([\w-]+)`", PAGE)) <= made
    named = re.findall(r"`((?:nbs|tests|atss_nb|tools)/[\w/.-]+\.\w+)`", PAGE)
    assert [name for name in named if not (ROOT / name).exists()] == ["nbs/workshop/samples/7_dynamic.ipynb"]

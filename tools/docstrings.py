"""Give the exported modules docstrings that say what the notebooks say in comments.

In a notebook a parameter is documented where it stands: `boxes: Tensor,  # (N, 5) cx, cy, w, h [px]`. That reads
well in the source, but `help()`, an editor and Jupyter's `?` show docstrings. So this step follows nbdev_export:
in every public function, method and class of an exported module the comments behind parameters, fields and the
return value move into the docstring, as the sections Args, Attributes and Returns. The names of the notebook's
cells go, too: a module reads as if it were written by hand, and `nbdev_update` lets the notebooks be. What is
private keeps its comments, which are read in the source. A second run changes nothing.
"""

import ast
import io
import re
import subprocess
import sys
import tempfile
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from tokenize import COMMENT, NL, OP, TokenInfo
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 110
PRAGMA = re.compile(r"#\s*(noqa|type:|fmt:|ruff:|mypy:|pragma)")
CELL = re.compile(r"^# %% \S+ #\w+\n", re.M)
NAMES = re.compile(r"^__all__ = \[[^\]]*\]\n", re.M)
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Edit(NamedTuple):
    "The characters from start to end become text."

    start: int
    end: int
    text: str


class Source:
    "A module: its tree, lines, tokens, and comments by line; the comments that are orders to tools stay where they are."

    def __init__(self, text: str):
        self.tree, self.lines = ast.parse(text), text.splitlines(keepends=True)
        self.tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        comments = [t for t in self.tokens if t.type == COMMENT and not PRAGMA.match(t.string)]
        self.comments = {t.start[0]: t for t in comments}

    def at(self, place: tuple[int, int]) -> int:
        "Where a token begins or ends, as a number of characters."
        return sum(map(len, self.lines[: place[0] - 1])) + place[1]

    def span(self, node: ast.stmt) -> tuple[int, int]:
        "Where a statement begins and ends; `ast` counts columns in bytes."
        ends = ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        start, end = (
            self.at((line, len(self.lines[line - 1].encode()[:column].decode()))) for line, column in ends
        )
        return start, end

    def header(self, node: Documented) -> list[TokenInfo]:
        "The tokens from `def` or `class` to the colon that ends the signature."
        found, depth = [], 0
        for token in self.tokens:
            if token.start >= (node.lineno, node.col_offset):
                found.append(token)
                if token.type == OP:
                    depth += (token.string in "([{") - (token.string in ")]}")
                    if token.string == ":" and not depth:
                        break
        return found

    def without(self, comment: TokenInfo) -> Edit:
        "No comment, and no spaces before it; of a line of its own nothing stays."
        line, before = comment.start[0], comment.line[: comment.start[1]].rstrip()
        end = self.at(comment.end) if before else self.at((line + 1, 0))
        return Edit(self.at((line, len(before))), end, "")


def is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def words(comment: TokenInfo) -> str:
    return comment.string.lstrip("#").strip()


def parameters(node: ast.FunctionDef) -> list[tuple[tuple[int, int], str]]:
    "Place and name of each parameter, in order; `*args` and `**kwargs` keep their stars."
    a = node.args
    named = [(arg, "") for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    named += [(arg, stars) for arg, stars in ((a.vararg, "*"), (a.kwarg, "**")) if arg]
    return sorted(((arg.lineno, arg.col_offset), stars + arg.arg) for arg, stars in named)


def owner(comment: TokenInfo, places: list[tuple[tuple[int, int], str]]) -> str:
    "The parameter a comment speaks of: the one before it or, with a line of its own, the one below it."
    line = comment.line.strip()
    before = [name for place, name in places if place < comment.start and not re.match("[*/],", line)]
    below = [name for place, name in places if place > comment.start and line.startswith("#")]
    return [*below[:1], *before[-1:], ""][0]


def function_edits(source: Source, node: ast.FunctionDef) -> Iterator[Edit]:
    "The comments of a signature into the docstring of the function."
    header = source.header(node)
    colon, places = header[-1], parameters(node)
    gone, args, returned = [], {}, []
    for line in range(node.lineno, colon.end[0] + 1):
        comment = source.comments.get(line)
        if comment is None:
            continue
        if comment.start > colon.start and returns_something(node):
            returned.append(words(comment))
        elif comment.start < colon.start and (name := owner(comment, places)):
            args[name] = " ".join([*filter(None, [args.get(name)]), words(comment)])
        else:
            continue  # a comment of nothing in the signature stays where it is
        gone.append(comment)
    if gone:
        yield from map(source.without, gone)
        yield from last_comma(source, [token for token in header if token not in gone])
        described = [f"{name}: {args[name]}" for _, name in places if name in args]
        yield docstring(source, node, {"Args": described, "Returns": returned})


def returns_something(node: ast.FunctionDef) -> bool:
    return node.name != "__init__" and not (
        isinstance(node.returns, ast.Constant) and node.returns.value is None
    )


def last_comma(source: Source, header: list[TokenInfo]) -> Iterator[Edit]:
    "Without the comma behind the last parameter the formatter puts a signature on one line if it fits."
    code = [token for token in header if token.type not in (NL, COMMENT)]
    opened = 0
    for before, token in zip(code, code[1:], strict=False):
        opened += token.type == OP and (token.string in "([{") - (token.string in ")]}")
        if token.string == ")" and not opened:
            if before.string == "," and not any(t.type == COMMENT for t in header):
                yield Edit(source.at(before.start), source.at(before.end), "")
            return


def class_edits(source: Source, node: ast.ClassDef) -> Iterator[Edit]:
    "The comments behind public fields into the docstring of the class."
    described = []
    for statement in node.body:
        target = (
            statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        )
        comments = field_comments(source, statement)
        if isinstance(target, ast.Name) and is_public(target.id) and comments:
            described.append(f"{target.id}: {' '.join(map(words, comments))}")
            yield from map(source.without, comments)
    if described:
        yield docstring(source, node, {"Attributes": described})


def field_comments(source: Source, statement: ast.stmt) -> list[TokenInfo]:
    "The comments of a field: behind it, or within the parentheses of a long one; those of a table's rows are not."
    rows = isinstance(getattr(statement, "value", None), ast.Dict | ast.List | ast.Set | ast.Tuple | ast.Call)
    lines = range(statement.end_lineno if rows else statement.lineno, statement.end_lineno + 1)
    return [source.comments[line] for line in lines if line in source.comments]


def docstring(source: Source, node: Documented, sections: dict[str, list[str]]) -> Edit:
    "The docstring with its sections, in the place of the old one or as a new first line."
    indent = " " * (node.col_offset + 4)
    old, first, colon = ast.get_docstring(node), node.body[0], source.header(node)[-1]
    parts = []
    for title, entries in sections.items():
        if entries:
            lines = [line for entry in entries for line in hanging(entry, WIDTH - len(indent) - 4)]
            parts.append("\n    ".join([f"{title}:", *lines]))
    start = old + "\n\n" if old else "\n"  # sections on the first line would lose their indentation
    text = quoted(start + "\n\n".join(parts) + "\n", indent)
    if old is not None:
        return Edit(*source.span(first), text)
    end = source.at(colon.end)
    if first.lineno == colon.start[0]:  # `def f(): ...` on one line
        return Edit(end, source.span(first)[0], f"\n{indent}{text}\n{indent}")
    return Edit(end, end, f"\n{indent}{text}")


def hanging(entry: str, width: int) -> list[str]:
    "An entry in lines, all but the first indented."
    return textwrap.wrap(
        entry, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def quoted(text: str, indent: str) -> str:
    "A docstring's literal, raw where it holds backslashes."
    raw = "\\" in text and '"""' not in text
    if not raw:
        text = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return ("r" if raw else "") + '"""' + textwrap.indent(text, indent).lstrip(" ") + indent + '"""'


def edits(source: Source, body: list[ast.stmt]) -> Iterator[Edit]:
    for node in body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            yield from class_edits(source, node)
            yield from edits(source, node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_public(node.name):
            yield from function_edits(source, node)


def without_docstrings(text: str) -> str:
    "What a module does, for a comparison."
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def documented(text: str) -> str:
    "A module's text with the comments of its signatures in its docstrings; unformatted."
    new = text
    source = Source(text)
    for edit in sorted(edits(source, source.tree.body), reverse=True):
        new = new[: edit.start] + edit.text + new[edit.end :]
    if without_docstrings(new) != without_docstrings(text):
        raise AssertionError("the code has changed, not only its docstrings")
    return CELL.sub("", new)


def formatted(texts: dict[Path, str]) -> dict[Path, str]:
    "Modules in the notebooks' format; `__all__` keeps its few long lines."
    with tempfile.TemporaryDirectory() as folder:
        places = {path: Path(folder) / f"{i}.py" for i, path in enumerate(texts)}
        for path, place in places.items():
            place.write_text(
                NAMES.sub("# fmt: off\n\\g<0># fmt: on\n", texts[path], count=1), encoding="utf-8"
            )
        ruff = [str(Path(sys.executable).parent / "ruff"), "format", "--quiet", "--isolated"]
        subprocess.run([*ruff, f"--line-length={WIDTH}", folder], check=True)
        written = {path: place.read_text(encoding="utf-8") for path, place in places.items()}
    return {path: re.sub(r"^# fmt: o(n|ff)\n", "", text, flags=re.M) for path, text in written.items()}


def main(package: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    exported = {
        path: text for path, text in texts.items() if "AUTOGENERATED" in text and path.name != "_modidx.py"
    }
    for path, text in formatted({path: documented(text) for path, text in exported.items()}).items():
        if text != texts[path]:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "atss_nb")

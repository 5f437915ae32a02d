"""A stage's code version: a hash of the syntax trees that it reaches, so that a comment changes nothing."""

import ast
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from ernie_pipeline.staleness.parsed import Parsed
from ernie_pipeline.utils.errors import PipelineError

PACKAGE = "ernie_pipeline"
ROOT = Path(__file__).parent.parent

BESIDE_THE_WORK = (
    f"{PACKAGE}.recipe",
    f"{PACKAGE}.store",
    *(f"{PACKAGE}.utils.{name}" for name in ("errors", "reporter", "timeline")),
)
"""Reached by every stage, deciding no output: a recipe's values are fingerprinted, and bytes are kept as they are."""


@dataclass(frozen=True)
class Code:
    """What a stage's work is done with: a hash of each module of this package that it reaches, and its libraries."""

    modules: dict[str, str]
    libraries: dict[str, str]

    @property
    def version(self) -> str:
        """One hash of all of it."""
        return short_hash([self.modules, self.libraries])


def read_code(
    modules: tuple[str, ...],
    libraries: tuple[str, ...],
    version_of: Callable[[str], str] = version,
    module_of: "ModuleOf | None" = None,
) -> Code:
    """The code as it stands in the files now: `modules`, what they import of this package, the libraries' versions.

    `version_of` and `module_of` (default: `read_module`) may remember what they found: stages share most of it.
    """
    module_of = module_of or read_module
    found = {name: module_of(name) for name in sorted(reached(modules, module_of))}
    _PARSED.keep()
    return Code(
        modules={name: module.shape for name, module in found.items() if module},
        libraries={library: version_of(library) for library in sorted(libraries)},
    )


def short_hash(value: object) -> str:
    """16 hex digits that stand for a value of JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Module:
    """`shape`: a hash of its syntax tree. `imports`: what it may import of this package: modules, and names in them."""

    shape: str
    imports: frozenset[str]


ModuleOf = Callable[[str], Module | None]


def read_module(name: str) -> Module | None:
    """The module as it stands in its file now, None where there is no such module.

    Read anew each time: a scheduler's process outlives many an edit. Raises `PipelineError` for a syntax error.
    """
    file = _file(name)
    if file is None:
        return None
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    try:
        read = _PARSED.of(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:  # ValueError: no text, or a null byte in it
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise PipelineError(f"{file}{line} is no Python that can be read: {reason}; mend it") from error
    imports = {absolute for origin, names in read["imports"] for absolute in _absolute(origin, names, package)}
    return Module(read["shape"], frozenset(i for i in imports if i.startswith(f"{PACKAGE}.")))


def reached(modules: tuple[str, ...], module_of: ModuleOf = read_module) -> set[str]:
    """`modules` and what they import inside this package, transitively, imports inside functions included."""
    if missing := [name for name in modules if module_of(name) is None]:
        raise ModuleNotFoundError(f"{missing[0]} is named as a stage's code, but there is no such module")
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and not name.startswith(BESIDE_THE_WORK) and (module := module_of(name)):
            found.add(name)
            waiting += module.imports
    return found


def _file(module: str) -> Path | None:
    path = os.path.join(ROOT, *module.split(".")[1:])  # noqa: PTH118  # asked a thousand times: `Path` takes longer
    return next((Path(file) for file in (f"{path}.py", f"{path}/__init__.py") if os.path.isfile(file)), None)  # noqa: PTH113


def _absolute(origin: str, names: list[str], package: str) -> list[str]:
    """What `import names`, or with an `origin` `from origin import names`, in `package` may import."""
    if not origin:
        return names
    absolute = resolve_name(origin, package)
    return [absolute, *(f"{absolute}.{name}" for name in names)]


def _read(text: str) -> dict[str, Any]:
    """`imports`: ("", ["json"]) of "import json", ("..near", ["far"]) of "from ..near import far". `shape`: a hash."""
    imports: list[tuple[str, list[str]]] = []
    shape = _shape(ast.parse(text), imports)
    # what is no JSON value stands as its repr: bytes, complex numbers, "..."
    return {"imports": imports, "shape": short_hash(json.dumps(shape, default=repr))}


_PARSED = Parsed(_read, reader=Path(__file__))


def _shape(node: ast.AST, imports: list[tuple[str, list[str]]]) -> list[Any]:
    """A syntax tree without positions and empty fields: `ast.dump` tells of those differently in each Python.

    What it imports is added to `imports`: one pass for both, as this is most of what opening the code location costs.
    """
    kind, fields = type(node), vars(node)
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.append(_import(node))
    elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        # a text that stands alone is a docstring or a comment on a constant
        node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
    shape: list[Any] = [kind.__name__]
    for name in kind._fields:
        value = fields.get(name)
        if value is None or name == "ctx":  # load or store: the node's place says which
            continue
        if isinstance(value, list):
            if value:
                shape.append((name, [_shape(v, imports) if isinstance(v, ast.AST) else v for v in value]))
        else:
            shape.append((name, _shape(value, imports) if isinstance(value, ast.AST) else value))
    return shape


def _import(node: ast.Import | ast.ImportFrom) -> tuple[str, list[str]]:
    origin = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    return origin, [alias.name for alias in node.names]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )

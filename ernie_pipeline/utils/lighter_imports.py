"""Imports of libraries without what nothing here calls: seconds of each process that loads a model."""

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

UNUSED = ("sklearn", "boto3")
"""What transformers and accelerate import wherever it is installed: more than a second."""


def without_unused(*more: str) -> None:
    """Let imports of `UNUSED` and `more` fail from now on, as if not installed: for a process of one's own."""
    for name in (*UNUSED, *more):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # to importlib: there is no such module


def bitsandbytes_without_compiler() -> None:
    """Let an import of bitsandbytes no longer load PyTorch's compiler, which its decorators ask for: a second.

    What they stand on is compiled when it is first called.
    """
    _execute_by("bitsandbytes", _compiling_later)


def files_read_once() -> None:
    """Let imports of transformers and TRL read once what they read twice: the lists of all installed packages' files,
    and transformers' own models, all of them, for a table that forgets the first before it has the last."""
    metadata.packages_distributions = cache(metadata.packages_distributions)
    _execute_by("transformers.utils.import_utils", _remembering_files)


def _execute_by(name: str, executor: "Executor") -> None:
    """From now on, let `executor` execute the module of that name when it is imported."""
    if not any(isinstance(finder, _Executed) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Executed(name, executor))


Executor = Callable[[Callable[[ModuleType], None], ModuleType], None]
"""Is given the module's own way of execution, and the module."""


class _Executed(MetaPathFinder):
    def __init__(self, name: str, executor: Executor):
        self.name, self.executor = name, executor

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == self.name else None
        if found and found.loader:
            execute = partial(self.executor, found.loader.exec_module)
            found.loader.exec_module = execute  # type: ignore[method-assign]
        return found


def _remembering_files(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    execute(module)
    if reads := getattr(getattr(module, "create_import_structure_from_path", None), "__wrapped__", None):
        module.create_import_structure_from_path = cache(reads)  # type: ignore[attr-defined]


def _compiling_later(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    import torch

    at_once = torch.compile
    torch.compile = partial(_later, at_once)  # type: ignore[assignment]
    try:
        execute(module)
    finally:
        torch.compile = at_once


def _later(compile_: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`torch.compile`, as a decorator with options or without, that compiles at the first call."""
    if function is None:
        return partial(_later, compile_, **options)
    compiled = cache(lambda: compile_(function, **options))

    @wraps(function)
    def compiled_by_now(*arguments: Any, **keywords: Any) -> Any:
        return compiled()(*arguments, **keywords)

    return compiled_by_now

"""Imports of libraries without what nothing here calls: seconds of each process that loads a model."""

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

UNUSED = ("sklearn", "boto3")
"""What transformers and accelerate import wherever it is installed: more than a second."""


def without_unused() -> None:
    """Let imports of `UNUSED` fail from now on, as where they are not installed: for a process of one's own."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # to importlib: there is no such module


def bitsandbytes_without_compiler() -> None:
    """Let an import of bitsandbytes no longer load PyTorch's compiler, which its decorators ask for: a second.

    What they stand on is compiled when it is first called.
    """
    if not any(isinstance(finder, _Bitsandbytes) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Bitsandbytes())


class _Bitsandbytes(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == "bitsandbytes" else None
        if found and found.loader:
            execute = partial(_compiling_later, found.loader.exec_module)
            found.loader.exec_module = execute  # type: ignore[method-assign]
        return found


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

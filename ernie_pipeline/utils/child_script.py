"""`python child_script.py SCRIPT REQUEST.json ANSWER.json`: the child's side of `child_process.ask_script`.

It imports nothing of its package, for the scripts that must not: what they try is code that lies elsewhere.
"""

import gc
import importlib.util
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _answer(script: Path, request: dict[str, Any]) -> Any:
    """What the script's function `answer` gives for the request's fields."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec, "a file whose name ends in .py"
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.answer(**request)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _main(script: Path, asked: Path, answered: Path) -> None:
    gc.set_threshold(100_000, 50, 50)  # each walks what libraries define on import: a quarter of an import's time
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()  # nobody else reads the answer
    try:
        answer = _answer(script, json.loads(asked.read_text(encoding="utf-8")))
    except Exception as error:
        answer = {"error": " ".join(str(error).split()) or type(error).__name__}
    answered.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))

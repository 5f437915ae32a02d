"""Kernels without a GPU: in Triton's interpreter, in a process of its own, as Triton reads its switch on import."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest


def told_by(module: str) -> Any:
    """The JSON in the last line that the module prints."""
    pytest.importorskip("triton", reason="needs the package triton: the extra dev, on Linux")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ended = subprocess.run([sys.executable, "-m", module], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout.splitlines()[-1])

"""What imports leave out, in a process of its own: this one has imported all of it."""

import json
import subprocess
import sys
from typing import Any

BITSANDBYTES = """
import json, sys, torch
from ernie_pipeline.utils.lighter_imports import bitsandbytes_without_compiler
asked = []
def compile(function, **options):
    asked.append([function.__name__, options])
    return function
torch.compile = compile
bitsandbytes_without_compiler()
from bitsandbytes.backends.default import ops
at_first = [torch.compile is compile, "torch._inductor.compile_fx" in sys.modules, *asked]
codes, code = torch.tensor([0, 1, 1, 0], dtype=torch.uint8), torch.tensor([0.5, 2.0])
for _ in range(2):
    values = ops._dequantize_blockwise_compute(codes, torch.tensor([1.0, 3.0]), code, 2, torch.float32).tolist()
print(json.dumps([at_first, values, asked]))
"""


def test_what_bitsandbytes_has_compiled_is_compiled_when_it_is_first_called() -> None:
    done = subprocess.run([sys.executable, "-c", BITSANDBYTES], capture_output=True, text=True, check=True)
    at_first, values, asked = json.loads(done.stdout)
    assert at_first == [True, False]
    assert values == [0.5, 2.0, 6.0, 1.5]
    assert asked == [["_dequantize_blockwise_compute", {"dynamic": False}]]


FILES = """
import json, sys
from collections import Counter
from pathlib import Path
if sys.argv[1] == "once":
    from ernie_pipeline.utils.lighter_imports import files_read_once
    files_read_once()
opened = Counter()
sys.addaudithook(lambda event, given: opened.update([str(given[0])]) if event == "open" else None)
from transformers import models
from trl import import_utils
files = [file for file in opened if Path(file).name in ("modeling_llama.py", "RECORD")]
times = sorted({opened[file] for file in files})
print(json.dumps([times, sorted(dir(models)), import_utils.PACKAGE_DISTRIBUTION_MAPPING]))
"""


def read_files(how: str) -> list[Any]:
    done = subprocess.run([sys.executable, "-c", FILES, how], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_what_transformers_and_trl_read_of_files_twice_is_read_once_and_says_the_same() -> None:
    twice, *before = read_files("as they do")
    once, *after = read_files("once")
    assert 2 in twice  # else it is of no use any more
    assert once == [1]
    assert after == before

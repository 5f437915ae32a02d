"""What imports leave out, in a process of its own: this one has imported all of it."""

import json
import subprocess
import sys

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

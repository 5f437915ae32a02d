"""What tests of commands in processes of their own have in common; their fixtures are in `conftest.py`."""

import subprocess
from collections.abc import Callable

HEAVY = {"dagster", "torch", "transformers", "mlflow", "polars", "pyarrow", "datasets", "sqlalchemy"}

WATCHED = """
import json, sys
started = []
sys.addaudithook(lambda event, values: started.append(event) if event in ("subprocess.Popen", "os.fork") else None)
from ernie_pipeline.cli.app import main
status = main(sys.argv[1:])
print(json.dumps([status, started, sorted(sys.modules)]))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ADAPTER = "adapter_model.safetensors"
MODULE = ("-m", "ernie_pipeline")

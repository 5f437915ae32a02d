"""Load a registered model back in a process of its own, as a server would, and tell what it computes.

A fresh process runs the code that lies beside the model, not the modules that the pipeline has already imported, and
gives all memory back when it ends. So this file is run as a script, and imports nothing of its package.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def load_back(uri: str, input_ids: list[int], question: str, folder: Path) -> dict[str, Any]:
    """{"logits": those after `input_ids`, "answer": that to `question`}, or {"error": one line}.

    `folder` is scratch space; the tracking server is the one that the environment names.
    """
    request, response = folder / "request.json", folder / "response.json"
    request.write_text(json.dumps({"uri": uri, "input_ids": input_ids, "question": question}), encoding="utf-8")
    # -P: neither this folder nor the working directory may stand in for the model's code; -B: leave no cache beside it
    command = [sys.executable, "-P", "-B", __file__, str(request), str(response)]
    # as in launch/local.py: GOMP's threads spin while they wait, and beside other work on the same cores that is slow
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment)
    if not response.is_file():
        reason = f"signal {-ended.returncode}" if ended.returncode < 0 else f"status {ended.returncode}"
        return {"error": f"the process that loads it ended with {reason} and no result; is there enough memory?"}
    result: dict[str, Any] = json.loads(response.read_text(encoding="utf-8"))
    return result


def _ask(uri: str, input_ids: list[int], question: str) -> dict[str, Any]:
    import mlflow

    model = mlflow.pyfunc.load_model(uri)
    logits = model.unwrap_python_model().logits(input_ids)
    return {"logits": logits, "answer": model.predict([{"question": question}])["answer"][0]}


def _main(request: Path, response: Path) -> None:
    try:
        result = _ask(**json.loads(request.read_text(encoding="utf-8")))
    except Exception as error:
        result = {"error": " ".join(str(error).split()) or type(error).__name__}
    response.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))

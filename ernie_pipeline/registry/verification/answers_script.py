"""`python answers_script.py REQUEST.json ANSWER.json`: the child's side of `answers.py`.

It imports nothing of its package: the code that answers is the one that lies beside the registered model.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _answer(uri: str, conversations: list[list[dict[str, str]]]) -> dict[str, Any]:
    """The fields of `Answered`."""
    import mlflow
    import torch

    model = mlflow.pyfunc.load_model(uri)
    answers = model.predict([{"messages": messages} for messages in conversations])["answer"]
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    backend = model.unwrap_python_model().model.spec.backend
    return {"answers": [str(answer) for answer in answers], "device": device, "backend": backend}


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _main(asked: Path, answered: Path) -> None:
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()  # nobody else reads the answer
    try:
        answer = _answer(**json.loads(asked.read_text(encoding="utf-8")))
    except Exception as error:
        answer = {"error": " ".join(str(error).split()) or type(error).__name__}
    answered.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The child's side of `answers.py`, run by `child_process.ask_script`.

It imports nothing of its package: the code that answers is the one that lies beside the registered model.
"""

import sys
from importlib.util import find_spec
from typing import Any


def answer(uri: str, conversations: list[list[dict[str, str]]]) -> dict[str, Any]:
    """The fields of `Answered`."""
    # as in `load_back_script.py`, for seconds less
    if find_spec("unsloth") is None:
        sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    import transformers  # noqa: F401, I001
    import mlflow
    import torch

    model = mlflow.pyfunc.load_model(uri)
    answers = model.predict([{"messages": messages} for messages in conversations])["answer"]
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    backend = model.unwrap_python_model().model.spec.backend
    return {"answers": [str(answer) for answer in answers], "device": device, "backend": backend}

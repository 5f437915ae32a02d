"""The child's side of `load_back.py`, run by `child_process.ask_script`.

It imports nothing of its package: the code that is to be tried is the one that lies beside the registered model.
"""

import sys
from importlib.util import find_spec
from typing import Any


def answer(uri: str, input_ids: list[int], question: str) -> dict[str, Any]:
    """The fields of `LoadedBack`."""
    if find_spec("unsloth") is None:  # which imports it; all others let transformers do so for what nothing here calls
        sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    # before MLflow, whose importlib_metadata makes transformers' look at all packages five times as long
    import transformers  # noqa: F401, I001
    import mlflow

    # the pins are those of the environment in which they were just written; to compare them takes a second
    model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
    logits = model.unwrap_python_model().logits(input_ids)
    return {"logits": logits, "answer": model.predict([{"question": question}])["answer"][0]}

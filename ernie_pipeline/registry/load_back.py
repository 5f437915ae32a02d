"""Load a registered model back in a process of its own, as a server would, and tell what it computes.

A fresh process runs the code that lies beside the model, not the modules that the pipeline has already imported, and
gives all memory back when it ends. What runs there is `load_back_script.py`.
"""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ernie_pipeline.utils.child_process import ask_script

SCRIPT = Path(__file__).with_name("load_back_script.py")


class LoadBackRequest(BaseModel):
    """Which model version, as MLflow's URI, and what is computed with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    input_ids: tuple[int, ...]
    question: str


class LoadedBack(BaseModel):
    """The logits after `input_ids`, one for each token of the vocabulary, and the answer to the question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logits: tuple[float, ...]
    answer: str


def load_back(request: LoadBackRequest, folder: Path) -> LoadedBack:
    """Load the model and compute; `folder` is scratch space. Raises `PipelineError` with one line that says why not.

    The tracking server is the one that the environment names.
    """
    return ask_script(SCRIPT, request, LoadedBack, folder, os.environ)

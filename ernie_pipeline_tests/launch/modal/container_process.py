"""`python -m ...container_process FOLDER`: what Modal's container does with one input, see `standin.py`."""

import json
import pickle
import signal
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from modal.exception import InputCancellation

from ernie_pipeline.launch.modal import container
from ernie_pipeline.store.shared import carried
from ernie_pipeline_tests.launch.modal.app import APP

signal.alarm(600)  # a test that fails leaves no process behind


def main(folder: Path) -> None:
    """Call the app's function with the input, and put out what comes of it; of an interrupt comes nothing."""
    carried.EVERY_S, container.STEP_FIRST_S = 0.5, 4.0  # a test does not wait for a minute
    spec = spec_from_file_location("modal_app", APP)
    assert spec
    assert spec.loader
    app = module_from_spec(spec)
    spec.loader.exec_module(app)

    def cancelled(*_: object) -> None:
        raise InputCancellation("Input was cancelled by user")

    signal.signal(signal.SIGUSR1, cancelled)
    warnings.simplefilter("ignore")  # "will not have access to the mounted Volume"
    try:
        result: object = app.run.local(*json.loads((folder / "input").read_text()))
    except (KeyboardInterrupt, InputCancellation):
        sys.exit(130)
    except BaseException as error:
        result = error
    unfinished = folder / ".output"
    unfinished.write_bytes(pickle.dumps(result))
    unfinished.rename(folder / "output")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ernie_pipeline.models.unsloth.process import COMPILED, fast_model
from ernie_pipeline.utils.errors import PipelineError


def test_it_compiles_into_a_folder_that_ends_with_the_process_and_calls_nobody(tmp_path: Path) -> None:
    code = (
        "import os; from ernie_pipeline.models.unsloth.process import *; prepare_environment(); prepare_environment();"
        "print(os.path.isdir(os.environ[COMPILED]), os.environ[COMPILED], os.environ['UNSLOTH_DISABLE_STATISTICS'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != COMPILED}
    ended = subprocess.run([sys.executable, "-c", code], env=clean, cwd=tmp_path, capture_output=True, check=True)
    there, folder, quiet = ended.stdout.decode().split()
    assert (there, quiet) == ("True", "1")
    assert not Path(folder).exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("unsloth") is not None, reason="the package unsloth is installed here")
def test_without_the_package_it_says_what_to_do() -> None:
    with pytest.raises(PipelineError, match=r"cannot be used here .*set training.backend"):
        fast_model()

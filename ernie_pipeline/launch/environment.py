"""The environment variables of every job, wherever it runs."""

import os

from ernie_pipeline.launch.launcher import Launch

QUIET = {
    # GOMP's threads spin while they wait: beside another process on the same cores that costs ten times the time
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "WANDB_DISABLED": "true",
}


HANDED_ON = ("PYTHONPATH", "HF_HUB_OFFLINE", "ERNIE_PIPELINE_BASES")
"""And no others: who may look at an engine's jobs reads their variables. Secrets are the engine's own to give."""


def handed_on() -> dict[str, str]:
    """What of this process's environment a job on an engine gets."""
    return {name: os.environ[name] for name in HANDED_ON if name in os.environ}


def variables_of(launch: Launch) -> dict[str, str]:
    """What a job's processes get on top of the environment that they find."""
    return {**QUIET, **launch.environment, "OMP_NUM_THREADS": str(launch.threads)}

"""The environment variables of every job, wherever it runs."""

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


def variables_of(launch: Launch) -> dict[str, str]:
    """What a job's processes get on top of the environment that they find."""
    return {**QUIET, **launch.environment, "OMP_NUM_THREADS": str(launch.threads)}

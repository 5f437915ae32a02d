"""`python -m ernie_pipeline.evaluation JOB.json`: the evaluation's process."""

from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.launch.child import run_job

if __name__ == "__main__":
    run_job(evaluate)

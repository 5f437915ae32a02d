"""`python -m ernie_pipeline.training JOB.json`: the trainer's process."""

from ernie_pipeline.launch.child import run_job
from ernie_pipeline.training.train import train

if __name__ == "__main__":
    run_job(train)

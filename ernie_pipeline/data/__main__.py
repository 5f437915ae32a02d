"""`python -m ernie_pipeline.data JOB.json`: the split's process."""

from ernie_pipeline.data.job import make, prepare_process
from ernie_pipeline.launch.child import run_job

if __name__ == "__main__":
    prepare_process()
    run_job(make)

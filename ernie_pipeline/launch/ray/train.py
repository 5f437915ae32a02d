"""`python -m ernie_pipeline.launch.ray.train JOB.json PROCESSES CPUS GPUS GIB`: a training over several nodes.

Ray Train places the processes, one by one on as many nodes as there are, tells each its rank and which address they
meet at, and ends all when one is lost. What a process does is what it does under torchrun.
"""

import os
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ernie_pipeline.launch.detached.life import LOST, alive
from ernie_pipeline.launch.envelope import Envelope
from ernie_pipeline.launch.parent import this_process
from ernie_pipeline.launch.torchrun import CHILD


def main(job_file: Path, processes: int, cpus: float, gpus: float, memory_gib: float) -> None:
    """Train by so many processes, with so much for each. The exit status `LOST` says that one of them failed.

    One that fails by itself leaves its sentence, and then it is not tried again.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    each = {"CPU": cpus, **({"GPU": gpus} if gpus else {}), **({"memory": memory_gib * 2**30} if memory_gib else {})}
    trainer = TorchTrainer(
        run_rank,
        train_loop_config={"envelope": job_file.read_text(encoding="utf-8")},
        # of Ray's own process group, which only hands the port on: it must not hold memory of the GPUs
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=processes, use_gpu=gpus > 0, resources_per_worker=each, placement_strategy="SPREAD"
        ),
        run_config=RunConfig(storage_path=str(job_file.parent / "ray_train"), name="run"),
    )
    attempt = Envelope.model_validate_json(job_file.read_bytes()).attempt
    try:
        # it beats from here on: the processes may have to wait for their GPUs
        with alive(attempt, obeys=False) if attempt else nullcontext():
            trainer.fit()
    except Exception:
        traceback.print_exc()
        sys.exit(LOST)


def run_rank(config: dict[str, Any]) -> None:
    """One process of the training, as a child of Ray's worker, and ended with it.

    Of its own, because a worker runs this in a thread, where no signal is heard, and has torch's process group already.
    """
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    ranks = get_context()
    port = broadcast_from_rank_zero(_free_port() if ranks.get_world_rank() == 0 else None)
    variables = {
        "RANK": ranks.get_world_rank(),
        "WORLD_SIZE": ranks.get_world_size(),
        "LOCAL_RANK": ranks.get_local_rank(),
        "LOCAL_WORLD_SIZE": ranks.get_local_world_size(),
        "MASTER_PORT": port,
    }
    envelope = Envelope.model_validate_json(config["envelope"]).model_copy(update={"parent": this_process()})
    with tempfile.TemporaryDirectory(prefix="ernie-job-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(envelope.model_dump_json(), encoding="utf-8")
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        subprocess.run([sys.executable, "-m", CHILD, str(file)], env=environment, check=True)


def _free_port() -> int:
    """Of this machine, on which the others meet: MASTER_ADDR is Ray's to say, but the port it says is in use."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:6]))

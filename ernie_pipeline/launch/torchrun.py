"""How one child is started, or several that train together, on this machine."""

import math
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"
CHILD = "ernie_pipeline.launch.child"


def command(job_file: Path, processes: int) -> list[str]:
    """The command line of the child that does the job, by way of torchrun if there are several processes."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", f"--local-addr={LOOPBACK}"]
    return [sys.executable, "-m", *([*torchrun, "-m"] if processes > 1 else []), CHILD, str(job_file)]


def surroundings(processes: int, stop_grace_s: float) -> dict[str, str]:
    """The environment variables by which several processes find each other on this machine, and only there.

    https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname; gloo's is of the same kind.
    """
    if processes == 1:
        return {}
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        # of a SIGTERM that torchrun hands on to its processes; 30 s by default, then it kills them
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(stop_grace_s)),
    }


def gpus_here(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> int:
    """How many NVIDIA GPUs this machine shows, without loading CUDA: device files, less what is hidden.

    CUDA reads CUDA_VISIBLE_DEVICES up to its first invalid entry, of which -1 is the usual one.
    """
    present = sum(file.name.removeprefix("nvidia").isdecimal() for file in devices.glob("nvidia*"))
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return present
    entries = [entry.strip() for entry in shown.split(",")]
    valid = next((n for n, entry in enumerate(entries) if entry in ("", "-1")), len(entries))
    return min(present, valid)

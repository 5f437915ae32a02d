"""The Modal app whose function does the jobs of `gpu.launcher: modal`. Deploy it: `modal deploy deploy/modal_app.py`.

Settings are read from the environment when it is deployed; ERNIE_PIPELINE_MODAL_ goes before each:
  APP         its name (ernie-pipeline); gpu.modal.app names another one
  GPU         as Modal has it: A100, A100-80GB, H100, H200:4, "" for none (A100)
  CPUS, MEMORY_GIB   of a container (4 and 32)
  TIMEOUT_S   seconds that a job may take in all, however often it is started again; 24 hours are Modal's limit for one
              start (86400). So much a job can cost at most, even if nobody follows it any more
  RETRIES     how often Modal starts a job again that crashed, each with a TIMEOUT_S of its own to Modal (0: the step
              that follows it submits it again). What Modal preempts is started again whatever this says
  SECRETS     names of Modal's secrets, separated by commas: the bucket's credentials, HF_TOKEN (ernie-pipeline)
  VOLUME      the name of the volume (ernie-pipeline): base models, their quantized form, compiled kernels
  EXTRAS      of the package besides `modal`, such as gpu for unsloth ("")
"""

import os
import tomllib
from pathlib import Path

import modal

DAY_S = 86_400
SAVE_S = 60
"""Before Modal's own timeout: a job is asked to save and end."""
MOUNTED = os.environ.get("ERNIE_PIPELINE_MODAL_MOUNT", "/ernie")
CACHE = os.environ.get("ERNIE_PIPELINE_CACHE", "/tmp/ernie_pipeline")
ROOT = Path(__file__).resolve().parents[1]


def setting(name: str, default: str) -> str:
    """What the environment says, or the default."""
    return os.environ.get(f"ERNIE_PIPELINE_MODAL_{name}", default)


def number(name: str, default: float, least: float, most: float) -> float:
    """A setting that is a number. Raises `SystemExit`, with a sentence, for one that is none, or out of its bounds."""
    text = setting(name, str(default))
    try:
        if least <= float(text) <= most:
            return float(text)
    except ValueError:
        pass
    raise SystemExit(f"ERNIE_PIPELINE_MODAL_{name} = {text!r} is no number from {least:g} to {most:g}; set one")


def locked_image() -> modal.Image:
    """Python, a compiler for Triton, all packages as uv.lock has them, and this package's files."""
    with (ROOT / "uv.lock").open("rb") as file:
        versions = {package["name"]: package["version"] for package in tomllib.load(file)["package"]}
    extras = ["modal", *filter(None, setting("EXTRAS", "").split(","))]
    return (
        modal.Image.debian_slim(python_version="3.11")
        .apt_install("build-essential")
        .uv_sync(str(ROOT), extras=extras, frozen=True, uv_version=versions["uv"])
        .env({"HF_HOME": f"{MOUNTED}/huggingface", "HF_HUB_DISABLE_TELEMETRY": "1"})
        .add_local_dir(ROOT / "ernie_pipeline", "/root/ernie_pipeline", ignore=["**/__pycache__"])
    )


TIMEOUT_S = int(number("TIMEOUT_S", DAY_S, 60, DAY_S))
app = modal.App(setting("APP", "ernie-pipeline"))
volume = modal.Volume.from_name(setting("VOLUME", "ernie-pipeline"), create_if_missing=True)


@app.function(
    image=locked_image() if modal.is_local() else modal.Image.debian_slim(),  # in a container the image is there
    gpu=setting("GPU", "A100") or None,
    cpu=number("CPUS", 4, 0.125, 64),
    memory=int(number("MEMORY_GIB", 32, 0.5, 336) * 1024),
    timeout=TIMEOUT_S,
    retries=int(number("RETRIES", 0, 0, 10)),
    volumes={MOUNTED: volume},
    secrets=[modal.Secret.from_name(name) for name in setting("SECRETS", "ernie-pipeline").split(",") if name],
    env={name: value for name, value in os.environ.items() if name.startswith("ERNIE_PIPELINE_MODAL_")},
    single_use_containers=True,
)
def run(address: str, below: str, attempt: str, digest: str) -> dict[str, object]:
    """Do the job below the key `below` of the home `address`; see `ernie_pipeline/launch/modal/container.py`."""
    from ernie_pipeline.launch.modal import container

    disks = container.Disks(cache=Path(CACHE), volume=Path(MOUNTED), keep=volume.commit)
    job = container.Input(address, below, attempt, digest)
    return container.run(job, disks, limit_s=max(TIMEOUT_S - SAVE_S, TIMEOUT_S / 2))

"""How a 4-bit base model and its LoRA adapter are held in memory: loaded, checked, saved, reloaded, asked.

Training, evaluation and the registered MLflow model go through here alike, so that what was trained is what is
measured and what is served. An engine is a module `<name>_engine` with the functions of `peft_engine`; its name in
`ENGINES` and its place in `engine_module` are where another one (unsloth) is added.
"""

from importlib.util import find_spec
from types import ModuleType

from ernie_pipeline.errors import PipelineError

ENGINES = ("peft",)
"""Those that this version has."""


def choose_engine(wanted: str) -> str:
    """The name of the engine that `wanted` (the recipe's training.engine) stands for in this process.

    "auto" is unsloth where a CUDA device and the package are, else peft: like the device it says where and how fast,
    so it is asked where the model is loaded, not where the recipe is read. Raises `PipelineError` where another one is
    asked for and missing.
    """
    missing = _what_is_missing("unsloth" if wanted == "auto" else wanted)
    if wanted == "auto":
        return "peft" if missing else "unsloth"
    if missing:
        raise PipelineError(f'training.engine = "{wanted}" {missing}; set it to "auto" or "peft"')
    return wanted


def engine_module(wanted: str) -> ModuleType:
    """The module of the engine that `wanted` stands for, see `choose_engine`."""
    name = choose_engine(wanted)
    if name == "peft":
        from ernie_pipeline.engines import peft_engine  # written out: the code of a stage is found by its imports

        return peft_engine
    raise NotImplementedError(name)


def engine_name(engine: ModuleType) -> str:
    """The name of the engine whose module it is."""
    return engine.__name__.rpartition(".")[2].removesuffix("_engine")


def _what_is_missing(name: str) -> str:
    """What an engine needs and this version or machine lacks, in a clause, or ""."""
    if name not in ENGINES:
        return "is not in this version"
    if name != "unsloth":
        return ""
    import torch

    if not torch.cuda.is_available():
        return "needs a CUDA device, and this machine shows none"
    if find_spec("unsloth") is None:
        return 'needs the package unsloth, which is not installed here: pip install "ernie_pipeline[gpu]"'
    return ""

"""How a 4-bit base model and its LoRA adapter are held in memory: loaded, checked, saved, reloaded, asked.

Training, evaluation and the registered MLflow model go through here alike, so that what was trained is what is
measured and what is served. An engine is a module with the functions of `peft_engine`; its place in `engine_module` is
where another one (unsloth) is added.
"""

from types import ModuleType

from ernie_pipeline.errors import PipelineError


def choose_engine(wanted: str) -> str:
    """The engine that "auto" stands for on this machine, or the one asked for."""
    return "peft" if wanted == "auto" else wanted


def engine_module(name: str) -> ModuleType:
    """The module of an engine. Raises `PipelineError` for one that this version does not have."""
    if name == "peft":
        from ernie_pipeline.engines import peft_engine

        return peft_engine
    raise PipelineError(f'training.engine = "{name}" is not in this version; set it to "auto" or "peft"')

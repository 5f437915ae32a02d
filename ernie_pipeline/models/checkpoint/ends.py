"""The tokens that end an answer, of a checkpoint whose model is not loaded."""

from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.checkpoint.tokenizer import Tokenizer, end_tokens
from ernie_pipeline.models.spec import BaseCheckpoint


def checkpoint_end_tokens(tokenizer: Tokenizer, base: BaseCheckpoint) -> list[int]:
    """As the loaded model has them: of the checkpoint's generation_config or, where it has none, of its config."""
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(base.checkpoint, revision=base.revision)
    except OSError:
        config = GenerationConfig.from_model_config(causal_lm_config(base.checkpoint, base.revision))
    return end_tokens(tokenizer, config)

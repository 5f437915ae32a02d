"""Whether prompts and their answers fit into what a model was made for."""

from collections.abc import Sequence

from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.utils.errors import PipelineError


def check_context(
    checkpoint: str, revision: str | None, prompts: Sequence[Sequence[int]], max_new_tokens: int, key: str
) -> None:
    """Raise `PipelineError` where a prompt (token ids) with `max_new_tokens` is longer than the model's context.

    Beyond it positions were never trained, and nothing says so: the answers are only worse. `key`: the recipe's key of
    the limit. A model whose configuration names no context takes any length.
    """
    config = causal_lm_config(checkpoint, revision).get_text_config()
    context: int | None = getattr(config, "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise PipelineError(
            f"the longest problem's prompt has {longest} tokens, and with {key} = {max_new_tokens} that is more than "
            f"the {context} tokens of the base model's context; lower {key}, or split.max_tokens so that long problems "
            "are left out"
        )

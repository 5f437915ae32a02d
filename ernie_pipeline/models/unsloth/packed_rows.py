"""Whether a model keeps the documents of a packed row apart."""

import torch

from ernie_pipeline.models.documents import document
from ernie_pipeline.models.micro_batches.layout import collate
from ernie_pipeline.models.transformers_model import TransformersModel

LENGTH = 24
SAME_WITHIN = 1e-2
"""Of the logits' norm. Behind two others of equal length a document's come from the same kernels, so they are equal but
for how rows fall into tiles; if it attends to the others they change by more."""


def keeps_documents_apart(model: TransformersModel) -> bool:
    """Whether a document's logits stay as they are when the one before it in its row is exchanged.

    Unsloth supports models that carry a state along a row or attend through kernels of their own, where positions that
    begin anew do not end a document.
    """
    vocabulary = int(model.base.config.get_text_config().vocab_size)
    first, other, second = ((torch.arange(LENGTH) * step + 7) % vocabulary for step in (5, 3, 11))
    behind_first, behind_other = (_logits(model, before, second) for before in (first, other))
    return bool((behind_first - behind_other).norm() < SAME_WITHIN * behind_first.norm())


def _logits(model: TransformersModel, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Those of the second document, behind the first."""
    row = [document(ids.tolist()) for ids in (first, second)]
    inputs = {name: value.to(model.device) for name, value in collate([row], model.tokenizer.pad_token_id).items()}
    del inputs["labels"]
    with model.evaluating(), torch.no_grad(), model.autocast():
        logits: torch.Tensor = model.module(**inputs, use_cache=False).logits
    return logits[0, len(first) :].float()

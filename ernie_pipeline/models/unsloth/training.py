"""Learning on rows through Unsloth's forward pass: its LoRA, its experts' products, its loss and its checkpointing."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from ernie_pipeline.models.backend import Facts
from ernie_pipeline.models.peft.rows import RowsTraining
from ernie_pipeline.models.unsloth.packed_rows import keeps_documents_apart
from ernie_pipeline.models.unsloth.process import settle_compilation
from ernie_pipeline.recipe.execution import Execution

if TYPE_CHECKING:
    from ernie_pipeline.models.unsloth.backend import UnslothModel


class UnslothTraining(RowsTraining):
    """See `TrainingBackend`: padded rows, or packed ones where the model keeps their documents apart."""

    def __init__(self, model: "UnslothModel", execution: Execution, steps: Sequence[Sequence[int]]):
        self.unsloth = model
        model.checkpointing = False
        packing = execution.packing and keeps_documents_apart(model)
        super().__init__(model, execution.model_copy(update={"packing": packing}), steps)
        model.to_training()

    def facts(self) -> Facts:
        """See `TrainingBackend.facts`."""
        return {**super().facts(), "packing": self.size.pack_tokens is not None, "unsloth": version("unsloth")}

    def _begin(self) -> None:
        settle_compilation()
        if not self.unsloth.module.training:
            self.unsloth.to_training()
        super()._begin()

    def _divisor(self, num_tokens: float) -> torch.Tensor:
        # as the Trainer gives it: compiled layers, which it is handed down to, would be compiled anew for each number
        return torch.tensor(num_tokens, dtype=torch.float32, device=self.unsloth.device)

    def _checkpoint(self) -> None:
        self.checkpointing = self.unsloth.checkpointing = True
        self.unsloth.to_training()

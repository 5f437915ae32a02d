"""Backend `unsloth`, on CUDA: `FastModel` and its own LoRA, for any model that Unsloth supports.

What it changes in silence is held against the recipe by `audit.py`. Its adapters are in PEFT's form for stacks of
experts (`target_parameters`), and load by `FastModel.from_pretrained(folder)`; plain PEFT would lose a part of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.models.audit import TargetCount
from ernie_pipeline.models.backend import BackendName, Generation, OnAnswer, Progress, Sampling, TrainingBackend
from ernie_pipeline.models.checkpoint.adapter_file import name_base, read_into, read_shape
from ernie_pipeline.models.checkpoint.config import causal_lm_config
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.models.peft.rows import logprobs_of_rows, loss_sum_of_rows
from ernie_pipeline.models.routing import Replay
from ernie_pipeline.models.spec import ModelSpec
from ernie_pipeline.models.transformers_model import TransformersModel
from ernie_pipeline.models.unsloth.audit import check_unsloth_model, expected_table
from ernie_pipeline.models.unsloth.process import fast_model
from ernie_pipeline.models.unsloth.training import UnslothTraining
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.recipe.sections import Lora
from ernie_pipeline.utils.errors import PipelineError, first_line


class UnslothBackend:
    """See the module."""

    name: BackendName = "unsloth"

    def load(self, spec: ModelSpec, device: str) -> "UnslothModel":
        """See `Backend.load`."""
        model = UnslothModel(spec, device, read_base(spec, device))
        if spec.adapter:
            model.read_adapter(spec.adapter)
        model.audit(training=False)
        return model


def read_base(spec: ModelSpec, device: str) -> Any:
    """The frozen model that Unsloth quantizes while it reads the checkpoint. Raises `PipelineError`."""
    fast, base = fast_model(), spec.base
    config = causal_lm_config(base.checkpoint, base.revision)
    try:
        model, _ = fast.from_pretrained(
            model_name=base.checkpoint,
            revision=base.revision,
            max_seq_length=config.get_text_config().max_position_embeddings,  # its trainer refuses longer rows
            load_in_4bit=True,
            dtype=None,
            device_map={"": f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device},
            local_files_only=base.revision is None,
            use_exact_model_name=True,  # else it may take another repository, quantized by its makers
            offload_embedding=False,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, ImportError, NotImplementedError) as error:
        raise PipelineError(
            f"base model {base.name} could not be loaded in 4 bits by Unsloth ({first_line(error)}); set "
            'training.backend to "peft"'
        ) from error
    return model.eval()


class UnslothModel(TransformersModel):
    """A model of Unsloth's, perhaps with its adapter."""

    checkpointing = False
    """Whether activations are computed twice in training instead of kept."""

    def add_adapter(self, lora: Lora, seed: int) -> None:
        """See `LoadedModel.add_adapter`."""
        base = self.spec.base
        config = causal_lm_config(base.checkpoint, base.revision)
        expected_table(config, lora.targets, lora.rank, training=True)  # refuses what cannot be had
        try:
            self.module = fast_model().get_peft_model(
                self.module,
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=list(lora.targets),
                bias="none",
                use_gradient_checkpointing="unsloth",  # ready for it: `to_training` says whether
                random_state=seed,
            )
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            raise PipelineError(f"Unsloth cannot add this adapter to {base.name} ({first_line(error)})") from error
        self.spec = self.spec.model_copy(update={"lora": lora})

    def save_adapter(self, folder: Path) -> None:
        """See `LoadedModel.save_adapter`: Unsloth's own form, which says how its experts' tensors are laid out."""
        self.module.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's card template; the registry writes the real card
        base = self.spec.base
        # `FastModel` looks there for the base: a hub id, or where it lies
        name_base(folder, base.name if base.revision else base.checkpoint, base.revision)

    def read_adapter(self, folder: Path) -> None:
        """Add a saved adapter, frozen. Raises `PipelineError` unless every saved tensor found its place."""
        saved = read_shape(folder)  # of its target_modules those are missing that only stacks have
        lora = Lora(rank=saved["rank"], alpha=saved["alpha"], dropout=0.0, targets=self.spec.lora.targets)
        self.add_adapter(lora, seed=0)
        read_into(self.module, folder)
        self.module.requires_grad_(False).eval()

    def audit(self, *, training: bool) -> list[TargetCount]:
        """See `LoadedModel.audit`."""
        base = self.spec.base
        config = causal_lm_config(base.checkpoint, base.revision)
        adapted = self.module is not self.base
        return check_unsloth_model(self.module, config, self.spec.lora, adapted=adapted, training=training)

    def loss_sum(self, documents: Sequence[Document], weights: Sequence[torch.Tensor] | None = None) -> float:
        """See `LoadedModel.loss_sum`."""
        return loss_sum_of_rows(self, documents, weights, torch.ones((), device=self.device))

    def token_logprobs(
        self, documents: Sequence[Document], temperature: float = 1.0, replay: Replay | None = None
    ) -> list[torch.Tensor]:
        """See `LoadedModel.token_logprobs`."""
        return logprobs_of_rows(self, documents, temperature, replay)

    def logits(self, input_ids: Sequence[int]) -> torch.Tensor:
        """See `LoadedModel.logits`."""
        with self.autocast():  # as in its training and its `generate`: the adapter is held in fp32
            return super().logits(input_ids)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        rows: int,
        seeds: Sequence[int] | None = None,
        progress: Progress | None = None,
        on_answer: OnAnswer | None = None,
    ) -> Generation:
        """See `LoadedModel.generate`: by Unsloth's own, in batches padded on the left."""
        was_training = self.module.training
        fast_model().for_inference(self.module)
        try:
            answers = self.answers_of(self.module, prompts, sampling, rows, seeds, progress, on_answer)
        finally:
            if was_training:
                self.to_training()
        if self.again:
            free_memory()
        return Generation(answers.tokens, answers.logprobs, "Unsloth's generate, 4-bit")

    def training(self, execution: Execution, steps: Sequence[Sequence[int]], fp8: bool = False) -> TrainingBackend:
        """See `LoadedModel.training`."""
        if fp8:
            raise PipelineError('training.fp8 is not in backend "unsloth"; set it to false')
        self.limit_gib = execution.memory_limit_gib
        return UnslothTraining(self, execution, steps)

    def to_training(self) -> None:
        """From what `for_inference` set, which Unsloth's trainer calls too, to training; checkpointing where asked."""
        mode = "unsloth" if self.checkpointing else False
        self.module._unsloth_gradient_checkpointing = mode  # what its trainer goes back to in `train`
        fast_model().for_training(self.module, use_gradient_checkpointing=mode)

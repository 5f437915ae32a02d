"""TRL's SFTTrainer on planned steps: the same ones however they are computed, and through kills, stops and full GPUs.

The Trainer keeps its loop, optimizer, schedule, logging and state. Its data loader gives the number of a whole
optimizer step, whose gradient the model's backend computes as it likes (`models/backend.py`).
"""

import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import bitsandbytes
import torch
from transformers import PrinterCallback, ProgressCallback, TrainerControl
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from ernie_pipeline.models.backend import LoadedModel
from ernie_pipeline.models.copies import copy_to_cpu, room_ahead
from ernie_pipeline.models.documents import Document
from ernie_pipeline.models.memory import does_not_fit, is_out_of_memory
from ernie_pipeline.models.routing import Replay
from ernie_pipeline.recipe.execution import Execution
from ernie_pipeline.training.callbacks import AfterEachStep
from ernie_pipeline.training.checkpoints import Facts
from ernie_pipeline.training.optimizer.adamw_8bit import AdamW8bit
from ernie_pipeline.training.progress import Progress
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.resume import (
    ADAPTER,
    BEST,
    Saved,
    Weights,
    read_states,
    read_weights,
    save_states,
    save_weights,
    set_weights,
)
from ernie_pipeline.training.rows import as_dataset
from ernie_pipeline.training.schedule.order import Plan
from ernie_pipeline.training.schedule.shares import share_of
from ernie_pipeline.training.sharding.parameters import ShardedParameters
from ernie_pipeline.training.sharding.state import OptimizerState
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.utils.reporter import Reporter
from ernie_pipeline.utils.timeline import part

AT_A_TIME = 128
"""Held-out rows between two looks at whether the training was asked to stop."""


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains the adapter of `loaded` on a plan, from the newest checkpoint in `saved` if any; see `fit`."""

    control: TrainerControl
    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        loaded: LoadedModel,
        config: SFTConfig,
        plan: Plan,
        *,
        ranks: Ranks,
        saved: Saved,
        report: Reporter,
        execution: Execution,
    ):
        self.loaded, self.plan, self.ranks, self.saved, self.report = loaded, plan, ranks, saved, report
        self.execution = execution
        self.shares = [share_of(step, plan.lengths, ranks.rank, ranks.size) for step in plan.steps]
        """What this rank takes of each step."""
        self.step_tokens = [*map(plan.tokens, range(len(plan.steps)))]
        self.progress = Progress(report, self.step_tokens, plan.settings.eval_every, ranks)
        self.stop = StopSignals()
        self.evaluated = 0
        """The step after which the last validation loss was taken."""
        self.best: dict[str, float] = {}
        """The `step` and `loss` of the best validation so far."""
        self.best_weights: Weights | None = None
        self.room = room_ahead(loaded.trainable())
        """For `best_weights`, and in the end for what is saved."""
        self.resumed_from: list[int] = []
        self.ended_by = ""
        self.last_save = time.monotonic()
        super().__init__(
            model=loaded.module,
            processing_class=loaded.tokenizer,
            args=config,
            train_dataset=as_dataset(plan.rows[:1]),  # it only looks at what a row has: steps and validation are ours
            eval_dataset=as_dataset(plan.eval_rows[:1]),
            callbacks=[self.progress, AfterEachStep(self)],
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        # no DDP around it: it keeps autograd nodes, whose stream then is not the one that a CUDA graph is captured on
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        ranks.broadcast_first([parameter.detach() for parameter in loaded.trainable().values()])
        lengths = [[plan.lengths[i] for i in share] for share in self.shares]
        self.backend = loaded.training(execution, lengths, plan.settings.fp8)
        self.sharded = ShardedParameters(self.backend.parameters, ranks)

    def fit(self) -> None:
        """Train to the end of the plan; then the model has the adapter that the recipe keeps: the best, or the last.

        Raises `PipelineError` when it was asked to stop, with a checkpoint saved, and when memory is too small for the
        smallest piece of a step.
        """
        found = self.saved.newest()
        if found:
            self._restore(found.folder, found.facts)
        with self.stop:
            try:
                self.train(resume_from_checkpoint=str(found.folder) if found else None)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise does_not_fit("the optimizer's state", self.execution.memory_limit_gib) from error
        if self.ended_by:
            raise self.saved.stopped(self.ended_by, self.state.global_step, len(self.plan.steps))
        if self.plan.settings.keep == "best" and self.best_weights is not None:
            set_weights(self.loaded.trainable(), self.best_weights)
        self.best_weights = None
        self.room.result().clear()  # what saves the adapter takes the same memory

    # The steps

    def get_train_dataloader(self) -> "torch.utils.data.DataLoader[dict[str, int]]":
        """A batch is the number of a planned step."""
        steps = [{"step": number} for number in range(len(self.plan.steps))]
        return torch.utils.data.DataLoader(steps, batch_size=1, collate_fn=lambda only: only[0])  # type: ignore[arg-type]

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, int], num_items_in_batch: object = None
    ) -> torch.Tensor:
        """Leave the gradient of a step's loss, the mean over all ranks' counted tokens, in the parameters.

        When memory runs out on some rank, all begin the step anew with less at a time. So the gradients are summed
        here and not by DDP, for whose sums in the middle of a backward pass a rank without memory would let the others
        wait. What is random in a step (dropout) follows from the seed, the step and the rank alone.
        """
        number = int(inputs["step"])
        documents = [self.plan.rows[sample].document for sample in self.shares[number]]
        return self.step_gradient(number, documents, self.plan.counted_tokens(number))

    def step_gradient(
        self,
        number: int,
        documents: Sequence[Document],
        num_tokens: float,
        weights: Sequence[torch.Tensor] | None = None,
        temperature: float = 1.0,
        replay: Replay | None = None,
    ) -> torch.Tensor:
        """Leave the gradient in the parameters and give this rank's part of the loss, see `training_step`.

        `documents`: this rank's; `num_tokens`: what the sum over all ranks' is divided by.
        """
        share = num_tokens / self.ranks.size  # the ranks' gradients are averaged
        seed = f"{self.args.seed}: step {number + 1}, rank {self.ranks.rank}"
        while True:
            torch.manual_seed(random.Random(seed).getrandbits(63))
            loss = self.backend.forward_backward(documents, share, weights, temperature, replay)
            if not self.ranks.any(loss is None)[0]:
                break
            self._need_less(number + 1)
        assert loss is not None
        self.sharded.reduce_gradients()
        self.progress.add_loss(loss)
        return loss

    def _need_less(self, step: int) -> None:
        now = self.backend.release_memory()
        if not now:
            raise does_not_fit(f"step {step}", self.execution.memory_limit_gib)
        self.report(f"step {step} ran out of memory: it begins anew with {now}, with the same samples a step", {})

    def create_optimizer(self, *args: object, **kwargs: object) -> torch.optim.Optimizer:
        """The Trainer's own kind, over this rank's shard of what the backend says is to be stepped."""
        if self.optimizer is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            if kind is bitsandbytes.optim.AdamW:
                kind = AdamW8bit
            group = {"params": self.sharded.own, "weight_decay": self.args.weight_decay}
            self.optimizer = kind([group], **settings)
            self.sharded.attach(self.optimizer)
        return self.optimizer

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        return self.sharded.clip_gradients(self.args.max_grad_norm)

    def floating_point_ops(self, inputs: object) -> int:
        """Not counted: it goes through all parameters at each step, for a figure that nobody reads."""
        return 0

    # Validation

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """The mean loss over all counted tokens of the held-out rows. Asked to stop, it saves and ends the training."""
        self.progress.pause()
        start = time.monotonic()
        with part(f"validation after step {self.state.global_step}"):
            loss = self._validation_loss()
        if loss is None:
            self.stop_here()
        self.evaluated = self.state.global_step
        self.progress.evaluated(loss, time.monotonic() - start, self.shown_of(loss))
        if not self.best or loss < self.best["loss"]:
            self.best = {"step": self.evaluated, "loss": loss}
            if self.plan.settings.keep == "best":
                self._keep_best()
        metrics = {"eval_loss": loss}  # the name that transformers' own callbacks know
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _keep_best(self) -> None:
        """A copy of the weights as they are; after the last step they stay what they are."""
        if self.evaluated >= len(self.plan.steps):
            self.best_weights = None
            return
        with part("copy of the best adapter"):
            self.best_weights = copy_to_cpu(self.loaded.trainable(), self.room.result())

    def stop_here(self) -> NoReturn:
        """Between two steps, save and raise `PipelineError`: it was asked to stop."""
        self.ended_by = self.stop.requested or "a signal to another rank"
        self._save_checkpoint(self.model, None)
        raise self.saved.stopped(self.ended_by, self.state.global_step, len(self.plan.steps))

    def shown_of(self, loss: float) -> dict[str, float]:
        """What the curve has of a validation's outcome."""
        return {"loss_objective": loss}

    def _validation_loss(self) -> float | None:
        """The loss that is optimised, in nats a token, over all ranks' rows; None when some rank was asked to stop."""
        documents = [row.document for row in self.plan.eval_rows]
        total, stopped = 0.0, False
        own = sorted(documents, key=lambda document: -len(document.ids))[self.ranks.rank :: self.ranks.size]
        for start in range(0, len(own), AT_A_TIME):
            if stopped := bool(self.stop.requested):
                break
            total += self.loaded.loss_sum(own[start : start + AT_A_TIME])
        total, stops = self.ranks.sum(total, stopped)
        return None if stops else total / sum(document.counted for document in documents)

    # Checkpoints

    @property
    def may_save(self) -> bool:
        """Whether another process could go on from here."""
        return True

    def state_of_method(self) -> Facts:
        """What a checkpoint keeps beyond the weights, the optimizer and the progress; of JSON's types."""
        return {}

    def restore_method(self, state: Facts) -> None:
        """Go on from where `state_of_method` was taken."""

    def facts_of_method(self) -> Facts:
        """What a report tells of a run, beyond what all runs have; of JSON's types."""
        return {}

    @property
    def padding_share(self) -> float:
        """The share of the tokens computed that were padding, as the micro-batches were at last."""
        computed, wanted = 0, 0
        for step in self.plan.steps:
            for rank in range(self.ranks.size):
                lengths = [self.plan.lengths[s] for s in share_of(step, self.plan.lengths, rank, self.ranks.size)]
                computed += self.backend.computed_tokens(lengths)
                wanted += sum(lengths)
        return 1 - wanted / max(1, computed)

    @property
    def is_late(self) -> bool:
        """Whether a checkpoint is due by the clock of the first rank, which decides for all."""
        return self.ranks.first and time.monotonic() - self.last_save >= self.execution.checkpoint_s

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        self.progress.pause()
        start = time.monotonic()
        facts = {
            "progress": self.progress.state(),
            "best": self.best,
            "evaluated": self.evaluated,
            "backend": self.backend.state(),
            "resumed_from": self.resumed_from,
            "method": self.state_of_method(),
        }
        with part(f"checkpoint of step {self.state.global_step}"):
            optimizer = self.sharded.whole_state(self.optimizer) if self.saved.checkpoints else None
            self.saved.write(self.state.global_step, partial(self._fill, optimizer or {}), facts)
        self.last_save = time.monotonic()
        self.progress.saved(self.last_save - start)

    def _fill(self, optimizer: OptimizerState, folder: Path) -> None:
        save_weights(copy_to_cpu(self.loaded.trainable()), folder / ADAPTER)
        if self.best_weights is not None and self.best["step"] != self.state.global_step:
            save_weights(self.best_weights, folder / BEST)
        save_states(optimizer, self.lr_scheduler.state_dict(), folder)
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: object = None) -> None:
        set_weights(self.loaded.trainable(), read_weights(Path(resume_from_checkpoint) / ADAPTER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the Trainer does for one process: for several it maps to their devices, which fails for "cpu:0"."""
        if checkpoint is not None:
            optimizer, schedule = read_states(Path(checkpoint))
            self.optimizer.load_state_dict(self.sharded.own_state(optimizer))
            self.lr_scheduler.load_state_dict(schedule)

    def _restore(self, folder: Path, facts: Facts) -> None:
        """What the Trainer does not load itself."""
        self.progress.restore(facts["progress"])
        step = self.progress.step
        self.best, self.evaluated = facts["best"], facts["evaluated"]
        if self.best and self.plan.settings.keep == "best":
            self.best_weights = read_weights(folder / (ADAPTER if self.best["step"] == step else BEST))
        self.resumed_from = [*facts["resumed_from"], step]
        self.backend.restore(facts["backend"])
        self.restore_method(facts["method"])
        due = step % self.plan.settings.eval_every == 0 or step == len(self.plan.steps)
        self.args.eval_on_start = due and self.evaluated < step

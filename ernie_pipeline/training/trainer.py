"""TRL's SFTTrainer on planned steps: the same ones however they lie in memory, and through kills, stops and full GPUs.

The Trainer keeps its loop, optimizer, schedule, clipping, logging and state. Its data loader gives a whole optimizer
step at a time (this rank's share of it), so that a step which ran out of memory can begin anew in smaller pieces.
"""

import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ernie_pipeline.models.grouped.padding_free import EndToEnd
from ernie_pipeline.models.memory import free_memory, is_out_of_memory
from ernie_pipeline.training.callbacks import AfterEachStep
from ernie_pipeline.training.flat import FlatParameters, step_without_waiting
from ernie_pipeline.training.memory import no_room, spare_memory
from ernie_pipeline.training.progress import Progress
from ernie_pipeline.training.ranks import Ranks
from ernie_pipeline.training.recorded import BUCKET, MOST_TOKENS, RecordedPasses
from ernie_pipeline.training.resume import (
    ADAPTER,
    BEST,
    Saved,
    Weights,
    copy_weights,
    read_weights,
    save_weights,
    set_weights,
)
from ernie_pipeline.training.rows import as_dataset
from ernie_pipeline.training.schedule.micro_batch_size import Pieces
from ernie_pipeline.training.schedule.micro_batches import Document, collate, lay_end_to_end, share_of, split_documents
from ernie_pipeline.training.schedule.order import Plan
from ernie_pipeline.training.stop import StopSignals
from ernie_pipeline.training.validation import MAX_TOKENS, MAX_TOKENS_END_TO_END, validation_loss
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.reporter import Reporter


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains the adapter of `model` on a plan, from the newest checkpoint in `saved` if any; see `fit`."""

    control: Any
    optimizer: Any

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: SFTConfig,
        plan: Plan,
        *,
        ranks: Ranks,
        saved: Saved,
        report: Reporter,
        save_every_s: float,
        limit_gib: float | None = None,
        end_to_end: EndToEnd | None = None,
    ):
        """With `end_to_end` the model takes documents laid end to end instead of rows."""
        self.plan, self.ranks, self.saved, self.report = plan, ranks, saved, report
        self.save_every_s, self.limit_gib, self.end_to_end = save_every_s, limit_gib, end_to_end
        self.shares = [share_of(step, plan.lengths, ranks.rank, ranks.size) for step in plan.steps]
        """What this rank takes of each step."""
        tokens = [sum(plan.lengths[sample] for sample in step) for step in plan.steps]
        self.progress = Progress(report, tokens, plan.settings["eval_every"])
        self.stop = StopSignals()
        # documents laid end to end are one row, however long
        self.pieces = Pieces(plan.settings, ranks.size, sys.maxsize if end_to_end else plan.row_tokens)
        self.evaluated = 0
        """The step after which the last validation loss was taken."""
        self.best: dict[str, float] = {}
        """The `step` and `loss` of the best validation so far."""
        self.best_weights: Weights | None = None
        self.resumed_from: list[int] = []
        self.ended_by = ""
        self._window: list[float] | None = None
        self._last_save = time.monotonic()
        self._flat = DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=True)
        super().__init__(
            model=model,
            processing_class=tokenizer,
            args=config,
            train_dataset=as_dataset(plan.rows),
            eval_dataset=as_dataset(plan.eval_rows),
            data_collator=self._one_step,
            callbacks=[self.progress, AfterEachStep(self)],
        )
        self.model.train()  # the base came frozen for use, and its layers heed gradient checkpointing in training only
        attention = str(self.model.config._attn_implementation)
        # flash attention heeds positions that start again in single rows only
        if plan.settings["packing"] and not end_to_end and "flash" in attention:
            raise PipelineError(f'training.packing with attention "{attention}" would mix samples; set it to false')
        for noisy in (PrinterCallback, ProgressCallback):
            self.remove_callback(noisy)
        self.trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # attention computes no further than it is told, and what fills a recorded pass up is a document too
        self.longest = max(BUCKET, *(len(row.ids) for row in (*plan.rows, *plan.eval_rows)))
        # no DDP around it: it keeps autograd nodes, whose stream then is not the one that a pass is recorded on
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        ranks.copy_first([parameter.detach() for parameter in self.trainable])
        self.flat = FlatParameters(self.trainable) if end_to_end else None
        self.recorded = self._recorded_passes() if end_to_end and self.args.device.type == "cuda" else None
        self._before = 0
        """Bytes of GPU memory in use when training begins."""
        self.spare = self.layers_unpacked = 0
        """Bytes that no step needs, and how many of the model's layers they make faster."""

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
                raise no_room("the optimizer's state", self.limit_gib) from error
        if self.ended_by:
            raise self._stopped()
        if self.plan.settings["keep"] == "best" and self.best_weights is not None:
            set_weights(self.model, self.best_weights)
        self.model.eval()

    # The steps

    def get_train_dataloader(self) -> Any:
        """A batch is this rank's share of a planned step."""
        return torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=self.shares,  # type: ignore[arg-type]
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Leave the gradient of a step's loss, the mean over all ranks' counted tokens, in the parameters.

        When memory runs out on some rank, all begin the step anew with less at a time. So the gradients are summed
        here and not by DDP, for whose sums in the middle of a backward pass a rank without memory would let the others
        wait. What is random in a step (dropout) follows from the seed, the step and the rank alone.
        """
        documents = split_documents(inputs)
        step = self.state.global_step + 1
        if self.recorded and self.progress.steps_here == 1:
            self._spend_spare_memory()
            self.recorded.begin()
        seed = f"{self.args.seed}: step {step}, rank {self.ranks.rank}"
        while True:
            torch.manual_seed(random.Random(seed).getrandbits(63))
            loss = self._accumulate(documents, num_items_in_batch)
            if not self.ranks.any(loss is None)[0]:
                break
            self._need_less(step)
        self.ranks.average_gradients([self.flat.values] if self.flat else self.trainable)
        assert loss is not None
        return loss

    def _spend_spare_memory(self) -> None:
        """Once the first step has shown what a step takes, with the optimizer's state, the rest may make it faster."""
        standing, passing = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated() - self._before
        free_memory()
        first = self._largest_pass(steps=slice(self.progress.step - 1, self.progress.step))
        largest = self._largest_pass()
        if largest > MOST_TOKENS:  # it is launched, while the recordings keep their memory
            largest += self._largest_pass(MOST_TOKENS)
        self._spend(spare_memory(standing, passing, largest / first, self.limit_gib))
        if self.layers_unpacked:
            self.report(f"spare memory keeps {self.layers_unpacked} layers' experts unpacked", {})

    def _spend(self, spare: int) -> None:
        assert self.end_to_end is not None
        self.spare, self.layers_unpacked = spare, self.end_to_end.spend_memory(self.model.get_base_model(), spare)

    def _largest_pass(self, most: int = sys.maxsize, steps: slice = slice(None)) -> int:
        return self.pieces.largest(self._lengths(self.shares[steps]), most)

    def _lengths(self, shares: Sequence[Sequence[int]]) -> list[list[int]]:
        return [[self.plan.lengths[sample] for sample in share] for share in shares]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own, over the adapter as one vector where it is one."""
        if self.flat and self.optimizer is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            group = {"params": [self.flat.values], "weight_decay": self.args.weight_decay}
            step_without_waiting()
            self.optimizer = kind([group], **settings)
            return self.optimizer
        return super().create_optimizer(*args, **kwargs)

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.flat:
            return torch.nn.utils.clip_grad_norm_([self.flat.values], self.args.max_grad_norm)
        return super()._clip_grad_norm(model)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The Trainer's own loss.

        SFTTrainer's adds the tokens' entropy and accuracy, which nobody reads: a softmax over the vocabulary, and an
        exchange between ranks, which may have unlike numbers of micro-batches.
        """
        return Trainer.compute_loss(self, model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: it goes through all parameters at each step, for a figure that nobody reads."""
        return 0

    def filled(self, tokens: int) -> int:
        """The width of a row of `tokens`, beside what its micro-batch's others make of it."""
        return self.recorded.filled(tokens) if self.recorded else tokens

    def _one_step(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if samples:
            return dict(self._flat(samples))
        return {name: torch.empty((1, 0), dtype=torch.long) for name in ("input_ids", "labels", "position_ids")}

    def _accumulate(self, documents: Sequence[Document], counted: Any) -> torch.Tensor | None:
        """The loss of these documents, its gradient in the parameters; None: out of memory."""
        layout = self.pieces.lay_out([len(document.ids) for document in documents])
        passes = self._passes_end_to_end if self.end_to_end else self._passes_over_rows
        total = torch.zeros((), device=self.args.device)
        try:
            if self.flat:
                self.flat.clear_gradients()
            for rows in layout:
                total += passes([[documents[i] for i in row] for row in rows], counted)
            return total
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _passes_over_rows(self, rows: Sequence[Sequence[Document]], counted: Any) -> torch.Tensor:
        batch = collate(rows, self.processing_class.pad_token_id)
        loss = self.compute_loss(self.model, self._prepare_inputs(batch), num_items_in_batch=counted)
        self.accelerator.backward(loss)
        detached: torch.Tensor = loss.detach()
        return detached

    def _passes_end_to_end(self, rows: Sequence[Sequence[Document]], counted: Any) -> torch.Tensor:
        documents = [document for row in rows for document in row]
        # the ranks' gradients are averaged, and `counted` is the number of all ranks' tokens
        share = torch.as_tensor(counted, dtype=torch.float32, device=self.args.device) / self.ranks.size
        if self.recorded:
            return self.recorded(documents, share)
        inputs = self._prepare_inputs(lay_end_to_end(documents, self.processing_class.pad_token_id))
        loss = self._loss_end_to_end(inputs, share)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss_end_to_end(self, inputs: dict[str, torch.Tensor], counted: torch.Tensor | float) -> torch.Tensor:
        """Of the model without what TRL and accelerate wrap around it: it says itself what is computed in what."""
        assert self.end_to_end is not None
        return self.end_to_end.loss(self.model.get_base_model(), inputs, self.longest) / counted

    def _recorded_passes(self) -> RecordedPasses:
        pad_id = self.processing_class.pad_token_id
        return RecordedPasses(self._loss_end_to_end, self.pieces.samples, pad_id, self._largest_pass)

    def _need_less(self, step: int) -> None:
        self.model.zero_grad()
        if self.recorded:
            self.recorded.forget()
        free_memory()
        if self.layers_unpacked:
            fewer = self.layers_unpacked // 2
            while self.layers_unpacked > fewer:
                self._spend(self.spare // 2)
            now = f"{self.layers_unpacked} layers' experts kept unpacked"
        # a step has fit, so not much is missing
        elif smaller := self.pieces.less(self._lengths(self.shares), slightly=self.progress.steps_here > 0):
            now = smaller
        elif not self.args.gradient_checkpointing:
            self.args.gradient_checkpointing = True
            self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
            now = "gradient checkpointing"
        else:
            raise no_room(f"step {step}", self.limit_gib)
        self.report(f"step {step} ran out of memory: it begins anew with {now}, with the same samples a step", {})

    # Validation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean loss over all counted tokens of the held-out rows. Asked to stop, it saves and ends the training."""
        self.progress.pause()
        start = time.monotonic()
        self.model.eval()
        documents = [Document(torch.tensor(row.ids), torch.tensor(row.labels)) for row in self.plan.eval_rows]
        loss = validation_loss(
            self._loss_sum,
            documents,
            self.ranks,
            max_tokens=MAX_TOKENS_END_TO_END if self.end_to_end else MAX_TOKENS,
            interrupted=lambda: bool(self.stop.requested),
            give_back=self.recorded.forget if self.recorded else lambda: False,
            limit_gib=self.limit_gib,
        )
        self.model.train()
        if loss is None:
            self.ended_by = self.stop.requested or "a signal to another rank"
            self._save_checkpoint(self.model, None)
            raise self._stopped()
        self.evaluated = self.state.global_step
        self.progress.evaluated(loss, time.monotonic() - start)
        if not self.best or loss < self.best["loss"]:
            self.best = {"step": self.evaluated, "loss": loss}
            self.best_weights = copy_weights(self.model) if self.plan.settings["keep"] == "best" else None
        metrics = {"eval_loss": loss}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _loss_sum(self, documents: Sequence[Document]) -> torch.Tensor:
        if self.end_to_end:
            inputs = self._prepare_inputs(lay_end_to_end(documents, self.processing_class.pad_token_id))
            return self._loss_end_to_end(inputs, 1)
        batch = collate([[document] for document in documents], self.processing_class.pad_token_id)
        loss: torch.Tensor = self.model(**self._prepare_inputs(batch), use_cache=False, num_items_in_batch=1).loss
        return loss

    # Checkpoints

    @property
    def is_late(self) -> bool:
        """Whether a checkpoint is due by the clock of the first rank, which decides for all."""
        return self.ranks.first and time.monotonic() - self._last_save >= self.save_every_s

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.progress.pause()
        start = time.monotonic()
        loss = self.ranks.sum(float(self._tr_loss))[0] / self.ranks.size
        facts = {
            "window": [loss, self._globalstep_last_logged],
            "progress": self.progress.state(),
            "best": self.best,
            "evaluated": self.evaluated,
            "pieces": [self.pieces.samples, self.pieces.tokens],
            "checkpointing": self.args.gradient_checkpointing,
            "resumed_from": self.resumed_from,
        }
        self.saved.write(self.state.global_step, self._fill, facts)
        self._last_save = time.monotonic()
        self.progress.saved(self._last_save - start)

    def _fill(self, folder: Path) -> None:
        save_weights(copy_weights(self.model), folder / ADAPTER)
        if self.best_weights is not None and self.best["step"] != self.state.global_step:
            save_weights(self.best_weights, folder / BEST)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        set_weights(self.model, read_weights(Path(resume_from_checkpoint) / ADAPTER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the Trainer does for one process: for several it maps to their devices, which fails for "cpu:0"."""
        if checkpoint is not None:
            for part, file in ((self.optimizer, OPTIMIZER_NAME), (self.lr_scheduler, SCHEDULER_NAME)):
                state = torch.load(Path(checkpoint) / file, map_location="cpu", weights_only=True)
                part.load_state_dict(state)

    def _restore(self, folder: Path, facts: dict[str, Any]) -> None:
        """What the Trainer does not load itself."""
        self.progress.restore(facts["progress"])
        step = self.progress.step
        self.best, self.evaluated, self._window = facts["best"], facts["evaluated"], facts["window"]
        if self.best and self.plan.settings["keep"] == "best":
            self.best_weights = read_weights(folder / (ADAPTER if self.best["step"] == step else BEST))
        self.resumed_from = [*facts["resumed_from"], step]
        samples, self.pieces.tokens = facts["pieces"]
        self.pieces.samples = min(self.pieces.samples, samples)
        self.args.gradient_checkpointing = facts["checkpointing"]
        due = step % self.plan.settings["eval_every"] == 0 or step == len(self.plan.steps)
        self.args.eval_on_start = due and self.evaluated < step

    def _stopped(self) -> PipelineError:
        told = f"stopped by {self.ended_by} after step {self.state.global_step} of {len(self.plan.steps)}"
        if self.saved.checkpoints is None:
            return PipelineError(f"{told}; it keeps no checkpoints, so the same command begins anew")
        return PipelineError(f"{told}; its checkpoint is kept: run the same command again and it goes on from there")

    def _send_telemetry(self) -> None:
        """None is sent."""

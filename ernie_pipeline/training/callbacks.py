"""What `AdapterTrainer` does between the steps beyond the Trainer's own rules."""

import time
from typing import Any

import torch
from transformers import TrainerCallback


class AfterEachStep(TrainerCallback):  # type: ignore[misc]
    """What the Trainer's own rules do not ask for: a checkpoint by the clock, an end when asked, the last log entry."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        trainer._last_save = time.monotonic()
        if trainer.flat:
            trainer.flat.bind()  # accelerate moves what several processes train
        if trainer.recorded:
            trainer._before = torch.cuda.memory_allocated()
        if trainer._window:  # the losses since the last log entry before the checkpoint
            trainer._tr_loss += trainer._window[0]
            trainer._globalstep_last_logged = int(trainer._window[1])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        asked, late = trainer.ranks.any(bool(trainer.stop.requested), trainer.is_late)
        if state.global_step == state.max_steps:
            control.should_log = True
        if asked:
            trainer.ended_by = trainer.stop.requested or "a signal to another rank"
            control.should_training_stop = True
        control.should_save = asked or late

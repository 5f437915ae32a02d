"""What `AdapterTrainer` does between the steps beyond the Trainer's own rules."""

import time
from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState

if TYPE_CHECKING:
    from ernie_pipeline.training.trainer import AdapterTrainer


class AfterEachStep(TrainerCallback):  # type: ignore[misc]
    """What the Trainer's own rules do not ask for: a checkpoint by the clock, an end when asked, the last log entry."""

    def __init__(self, trainer: "AdapterTrainer"):
        self.trainer = trainer

    def on_train_begin(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        self.trainer.last_save = time.monotonic()

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        trainer = self.trainer
        asked, late = trainer.ranks.any(bool(trainer.stop.requested), trainer.is_late)
        if not trainer.may_save:
            asked = late = False
        if state.global_step == state.max_steps:
            control.should_log = True
        if asked:
            trainer.ended_by = trainer.stop.requested or "a signal to another rank"
            control.should_training_stop = True
        control.should_save = asked or late

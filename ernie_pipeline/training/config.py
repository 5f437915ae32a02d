"""What the Trainer is told of the recipe."""

import math
import tempfile
from typing import Any

from trl import SFTConfig


def trainer_config(settings: dict[str, Any], steps: int, *, bf16: bool, device: str) -> SFTConfig:
    """What the Trainer does as it stands, from the recipe's section training."""
    config = SFTConfig(
        output_dir=tempfile.gettempdir(),  # nothing is saved there
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=1,  # a batch of the data loader is a whole step
        max_steps=steps,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["schedule"],
        warmup_steps=math.ceil(settings["warmup_fraction"] * steps),
        optim=settings["optimizer"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_grad_norm"],
        bf16=bf16,
        use_cpu=device == "cpu",
        gradient_checkpointing=settings["gradient_checkpointing"],
        gradient_checkpointing_kwargs={"use_reentrant": False},
        completion_only_loss=settings["completion_only_loss"],
        router_aux_loss_coef=0.0,  # TRL adds it by default: it is no part of the loss that is reported
        max_length=None,  # the split holds no row that is too long
        packing=False,  # a step's rows are packed when they are laid out in memory
        eval_strategy="steps",
        eval_steps=settings["eval_every"],
        logging_steps=settings["log_every"],
        logging_nan_inf_filter=False,  # it hides them
        save_strategy="no",  # by the clock and at a new best, see `AdapterTrainer`
        seed=settings["seed"],
        dataloader_pin_memory=device != "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    config._n_gpu = min(config.n_gpu, 1)  # further GPUs of this machine are for further processes, not nn.DataParallel
    return config

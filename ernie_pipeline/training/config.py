"""The Trainer's settings, from the recipe."""

import math
import tempfile

from trl import SFTConfig

from ernie_pipeline.recipe.sections import Training


def trainer_config(settings: Training, steps: int, *, device: str) -> SFTConfig:
    """What the Trainer does as it stands, from the recipe's section training."""
    config = SFTConfig(
        output_dir=tempfile.gettempdir(),  # nothing is saved there
        per_device_train_batch_size=settings.samples_per_step,
        gradient_accumulation_steps=1,  # a batch of the data loader is a whole step
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler,
        warmup_steps=math.ceil(settings.warmup_fraction * steps),
        optim=settings.optimizer,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=False,  # the backend says what is computed in what
        use_cpu=device == "cpu",
        gradient_checkpointing=False,  # the backend's, see `execution`
        completion_only_loss=settings.completion_only_loss,
        router_aux_loss_coef=0.0,  # TRL adds it by default: it is no part of the loss that is reported
        max_length=None,  # the split holds no row that is too long
        packing=False,  # the backend's, see `execution`
        padding_free=False,  # Unsloth's trainer turns it on where it is not said
        dataset_kwargs={"skip_prepare_dataset": True},  # the rows are token ids and labels
        eval_strategy="steps",
        eval_steps=settings.eval_every,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # it hides them
        save_strategy="no",  # by the clock and at a new best, see `AdapterTrainer`
        seed=settings.seed,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )
    config._n_gpu = min(config.n_gpu, 1)  # further GPUs of this machine are for further processes, not nn.DataParallel
    return config

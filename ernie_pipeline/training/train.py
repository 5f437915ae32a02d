"""One training run: base in 4 bits, adapter on it, TRL's SFTTrainer, adapter saved, reloaded and compared."""

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.engines import engine_module, engine_name
from ernie_pipeline.engines.audit import totals
from ernie_pipeline.engines.chat import load_tokenizer
from ernie_pipeline.engines.device import choose_device
from ernie_pipeline.errors import PipelineError
from ernie_pipeline.reporter import Reporter
from ernie_pipeline.training.progress import Progress
from ernie_pipeline.training.rows import training_rows

MAX_EVAL_BATCH = 64


def train(job: dict[str, Any], report: Reporter) -> None:
    """Train what `job` describes and fill its folder `out`.

    `job`: engine, base {name, checkpoint, revision}, quantization, lora, training (recipe sections as tables), split (a
    folder with train.parquet and eval.parquet), out, gpu (see `choose_device`).
    Writes `adapter/` (PEFT's format), `parameters.json` (the table of what was trained), `curve.json`, and below
    `reports/` what it ran on. Raises `PipelineError` when the model is not what the recipe asks for.
    """
    device = choose_device(job["gpu"], report)
    _make_deterministic(job["training"]["seed"], device)
    engine = engine_module(job["engine"])
    job = {**job, "engine": engine_name(engine)}
    base, lora, out = job["base"], job["lora"], Path(job["out"])

    report(f"loading {base['name']} in {job['quantization']['bits']} bits on {device}, engine {job['engine']}", {})
    tokenizer = load_tokenizer(base["checkpoint"], base["revision"])
    model = engine.load_base(base["checkpoint"], base["revision"], job["quantization"], device)
    model = engine.add_adapter(model, lora, job["training"]["seed"])
    config = engine.causal_lm_config(base["checkpoint"], base["revision"])
    parameters = engine.check_model(model, config, lora, training=True)
    sums = totals(parameters)
    report(f"{sums['trainable_parameters']:,} trainable parameters on {sums['modules']} 4-bit layers", {})

    progress = Progress(report)
    trainer = _trainer(model, tokenizer, job, device, progress)
    engine.check_model(model, config, lora, training=True)  # TRL and accelerate may cast what they are given
    trainer.train()
    if "eval_loss" not in progress.curve[-1]:
        trainer.evaluate()

    # without accelerate's autocast, which is for training: the adapter is used without it
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    engine.save_adapter(model, out / "adapter", base["name"], base["revision"])
    _write_json(out / "parameters.json", parameters)
    _write_json(out / "curve.json", progress.curve)
    probe = torch.tensor(trainer.eval_dataset[0]["input_ids"])
    trained = engine.logits(model, probe)
    with model.disable_adapter():
        change = (trained - engine.logits(model, probe)).abs().max().item()
    (out / "reports").mkdir()
    facts = {"engine": job["engine"], **_facts(trainer, progress, device), **sums, "logit_change": change}
    _write_json(out / "reports" / "run.json", facts)
    del trainer, model
    _check_reload(engine, job, out / "adapter", probe, trained, device)
    report("adapter saved; reloaded from disk it gives the same logits", {})


def _trainer(model: Any, tokenizer: Any, job: dict[str, Any], device: str, progress: Progress) -> Any:
    from transformers import PrinterCallback, ProgressCallback
    from trl import SFTConfig, SFTTrainer

    settings, split = job["training"], Path(job["split"])
    only = settings["completion_only_loss"]
    train_rows = training_rows(split / "train.parquet", tokenizer, completion_only_loss=only)
    eval_rows = training_rows(split / "eval.parquet", tokenizer, completion_only_loss=only)
    bf16 = job["quantization"]["compute_dtype"] == "bfloat16"
    config = SFTConfig(
        output_dir=tempfile.gettempdir(),  # nothing is saved there
        per_device_train_batch_size=settings["batch_size"],
        per_device_eval_batch_size=min(MAX_EVAL_BATCH, 4 * settings["batch_size"]),
        gradient_accumulation_steps=settings["accumulation"],
        max_steps=settings["max_steps"] or -1,
        num_train_epochs=settings["epochs"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["schedule"],
        warmup_steps=settings["warmup_fraction"],  # below 1, transformers 5 reads it as the share of all steps
        optim=settings["optimizer"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_grad_norm"],
        bf16=bf16,
        use_cpu=device == "cpu",
        gradient_checkpointing=settings["gradient_checkpointing"],
        completion_only_loss=only,
        router_aux_loss_coef=0.0,  # TRL adds it by default: it is no part of the loss that is reported
        max_length=None,  # the split holds no row that is too long
        packing=False,
        eval_strategy="steps",
        eval_steps=settings["eval_every"],
        logging_steps=settings["log_every"],
        save_strategy="no",
        seed=settings["seed"],
        data_seed=settings["seed"],
        dataloader_pin_memory=device != "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=config,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        callbacks=[progress],
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    return trainer


def _check_reload(
    engine: Any, job: dict[str, Any], adapter: Path, probe: torch.Tensor, trained: torch.Tensor, device: str
) -> None:
    """The adapter from disk, on a fresh base, must give the logits of the one that was trained."""
    reloaded = engine.load({**job, "adapter": str(adapter)}, device)
    difference = (engine.logits(reloaded, probe) - trained).abs().max().item()
    if difference > 1e-4 * trained.abs().max().item():  # the same weights and kernels: rounding at most
        raise PipelineError(
            f"the saved adapter is not the trained one: reloaded, its logits differ by up to {difference:.3g}; "
            "nothing was stored, please report this with the recipe"
        )


def _make_deterministic(seed: int, device: str) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    if device == "cpu":
        torch.use_deterministic_algorithms(True)


def _facts(trainer: Any, progress: Progress, device: str) -> dict[str, Any]:
    on_gpu = device != "cpu"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "steps": trainer.state.global_step,
        "seconds": round(progress.seconds, 1),
        "train_rows": len(trainer.train_dataset),
        "eval_rows": len(trainer.eval_dataset),
    }


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

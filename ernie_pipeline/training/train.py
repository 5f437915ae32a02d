"""One training run: base in 4 bits, adapter on it, TRL's SFTTrainer, adapter saved, reloaded and compared."""

import json
from pathlib import Path
from typing import Any

import torch

from ernie_pipeline.models import engine_module, engine_name
from ernie_pipeline.models.audit import totals
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer
from ernie_pipeline.models.device import choose_device
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.training.memory import smaller_limit
from ernie_pipeline.training.ranks import Ranks, join_ranks
from ernie_pipeline.training.resume import Saved, run_key
from ernie_pipeline.training.rows import read_rows
from ernie_pipeline.training.schedule.micro_batches import computed_tokens, share_of
from ernie_pipeline.training.schedule.order import Plan
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.reporter import Reporter

CHECKPOINT_S = 300.0
"""Seconds between two checkpoints, unless the `gpu` resource says otherwise: as much is lost when it is killed."""


def train(job: dict[str, Any], report: Reporter) -> None:
    """Train what `job` describes and fill its folder `out`.

    `job`: engine, base {name, checkpoint, revision}, quantization, lora, training (recipe sections as tables), split (a
    folder with train.parquet and eval.parquet), out, gpu (see `choose_device`, and `checkpoint_s`), and `checkpoints`,
    a folder that outlives a killed run, from which the next one goes on (None or absent: there are none).
    Writes `adapter/` (PEFT's format), `parameters.json` (the table of what was trained), `curve.json`, and below
    `reports/` what it ran on and how fast (run.json, speed.json). Started by torchrun, each process trains on its
    share and the first one reports and writes. Raises `PipelineError` when the model is not what the recipe asks for,
    when memory is too small, and when a signal stopped it.
    """
    with join_ranks() as ranks:
        if not ranks.first:
            report = _silent
        limit = smaller_limit(job["gpu"]["memory_gib"], job["training"]["memory_limit_gib"])
        device = choose_device({**job["gpu"], "memory_gib": limit}, report)
        if device == "cpu":
            torch.use_deterministic_algorithms(True)
        engine = engine_module(job["engine"], job["quantization"])
        job = {**job, "engine": engine_name(engine)}
        model, parameters = _load(engine, job, device, report)
        trainer = _trainer(engine, model, job, device, ranks, limit, report)
        del model
        config = engine.causal_lm_config(job["base"]["checkpoint"], job["base"]["revision"])
        engine.check_model(trainer.model, config, job["lora"], training=True)  # TRL and accelerate may cast it
        trainer.fit()
    if ranks.first:
        probe, trained = _write(engine, job, trainer, parameters, device)
        del trainer
        free_memory()
        _check_reload(engine, job, Path(job["out"]) / "adapter", probe, trained, device)
        report("adapter saved; reloaded from disk it gives the same logits", {})


def _load(engine: Any, job: dict[str, Any], device: str, report: Reporter) -> tuple[Any, list[dict[str, Any]]]:
    """The model with a fresh adapter, and the checked table of what is trained."""
    base, lora = job["base"], job["lora"]
    report(f"loading {base['name']} in {job['quantization']['bits']} bits on {device}, engine {job['engine']}", {})
    model = engine.base_of(job, device)
    model = engine.add_adapter(model, lora, job["training"]["seed"])
    config = engine.causal_lm_config(base["checkpoint"], base["revision"])
    parameters = engine.check_model(model, config, lora, training=True)
    sums = totals(parameters)
    report(f"{sums['trainable_parameters']:,} trainable parameters on {sums['modules']} 4-bit layers", {})
    return model, parameters


def _trainer(
    engine: Any, model: Any, job: dict[str, Any], device: str, ranks: Ranks, limit: float | None, report: Reporter
) -> Any:
    from ernie_pipeline.training.config import trainer_config  # after the engine's own imports
    from ernie_pipeline.training.trainer import AdapterTrainer

    base, settings, split = job["base"], job["training"], Path(job["split"])
    tokenizer = load_tokenizer(base["checkpoint"], base["revision"])
    rows, eval_rows = (
        read_rows(split / f"{part}.parquet", tokenizer, completion_only_loss=settings["completion_only_loss"])
        for part in ("train", "eval")
    )
    plan = Plan(settings, rows, eval_rows)
    bf16 = job["quantization"]["compute_dtype"] == "bfloat16"
    return AdapterTrainer(
        model,
        tokenizer,
        trainer_config(settings, len(plan.steps), bf16=bf16, device=device),
        plan,
        ranks=ranks,
        saved=Saved(job.get("checkpoints"), run_key(job, rows, eval_rows), ranks, report),
        report=report,
        save_every_s=job["gpu"].get("checkpoint_s") or CHECKPOINT_S,
        limit_gib=limit,
        end_to_end=engine.end_to_end,
    )


def _write(
    engine: Any, job: dict[str, Any], trainer: Any, parameters: list[dict[str, Any]], device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the job's folder; the tokens of a held-out row, and the trained model's logits for them."""
    out, base = Path(job["out"]), job["base"]
    # without accelerate's autocast, which is for training: the adapter is used without it
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    engine.save_adapter(model, out / "adapter", base["name"], base["revision"])
    _write_json(out / "parameters.json", parameters)
    _write_json(out / "curve.json", trainer.progress.curve)
    probe = torch.tensor(trainer.plan.eval_rows[0].ids)
    trained = engine.logits(model, probe)
    with model.disable_adapter():
        change = (trained - engine.logits(model, probe)).abs().max().item()
    (out / "reports").mkdir()
    _write_json(out / "reports" / "speed.json", trainer.progress.speed)
    facts = {"engine": job["engine"], **_facts(trainer, device), **totals(parameters), "logit_change": change}
    _write_json(out / "reports" / "run.json", facts)
    return probe, trained


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


def _facts(trainer: Any, device: str) -> dict[str, Any]:
    on_gpu, progress, plan = device != "cpu", trainer.progress, trainer.plan
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "processes": trainer.ranks.size,
        "peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "train_rows": len(plan.rows),
        "eval_rows": len(plan.eval_rows),
        "samples": sum(map(len, plan.steps)),
        "tokens": progress.tokens,
        "tokens_per_s": round(progress.tokens_per_s, 1),
        "padding_share": round(_padding_share(trainer), 4),
        "best_step": trainer.best["step"],
        "kept_step": trainer.best["step"] if plan.settings["keep"] == "best" else progress.step,
        "micro_batch": trainer.pieces.samples,
        "micro_batch_tokens": trainer.pieces.tokens,
        "gradient_checkpointing": trainer.args.gradient_checkpointing,
        "layers_kept_unpacked": trainer.layers_unpacked,
        "resumed_from": trainer.resumed_from,
    }


def _padding_share(trainer: Any) -> float:
    """The share of the tokens computed that were padding, with the micro-batches in use at last."""
    computed, wanted, plan, ranks = 0, 0, trainer.plan, trainer.ranks.size
    for step in plan.steps:
        for rank in range(ranks):
            own = [plan.lengths[sample] for sample in share_of(step, plan.lengths, rank, ranks)]
            computed += computed_tokens(own, trainer.pieces.lay_out(own), trainer.filled)
            wanted += sum(own)
    return 1 - wanted / computed


def _silent(line: str, values: dict[str, Any]) -> None:
    """What ranks other than the first have to say."""


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

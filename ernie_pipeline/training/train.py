"""One training run: base in 4 bits, adapter on it, TRL's SFTTrainer, adapter saved, reloaded and compared."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.audit import TargetCount, totals
from ernie_pipeline.models.backend import LoadedModel
from ernie_pipeline.models.device import Device, choose_device
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.training.job import TrainingJob
from ernie_pipeline.training.ranks import Ranks, join_ranks
from ernie_pipeline.training.resume import Saved, run_key
from ernie_pipeline.training.rows import Row, read_rows
from ernie_pipeline.training.schedule.order import Plan
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline.utils.json_file import write_json
from ernie_pipeline.utils.reporter import Reporter
from ernie_pipeline.utils.timeline import part, timeline

if TYPE_CHECKING:
    from ernie_pipeline.training.trainer import AdapterTrainer

GRPO = "ernie_pipeline.training.grpo.trainer"
"""By name, so that what only this method reaches is no code of the others', whose artifacts it does not make stale."""

RELOADED_WITHIN = 1e-4
"""Of the largest logit: the same weights and kernels, so rounding at most."""


def train(job: TrainingJob, report: Reporter) -> None:
    """Train what `job` describes and fill its folder `out`.

    Writes `adapter/` (PEFT's format), `parameters.json` (the table of what was trained), `curve.json`, and below
    `reports/` what it ran on, how fast, and what it did when (run.json, speed.json, timeline.json). Started by
    torchrun, each process trains on its share and the first one reports and writes. Raises `PipelineError` when the
    model is not what the recipe asks for, when memory is too small, and when a signal stopped it.
    """
    with join_ranks() as ranks:
        if not ranks.first:
            report = _silent
        with part("device"):
            device = choose_device(job.limits, job.execution, report)
        if device.name == "cpu":
            torch.use_deterministic_algorithms(True)
        loaded = _load(job, device, report)
        with ThreadPoolExecutor(1) as pool:  # in the seconds that the adapter's random numbers take
            rows = pool.submit(_read_rows, loaded, job)
            parameters = _add_adapter(loaded, job, report)
        trainer = _trainer(loaded, job, rows.result(), device, ranks, report)
        loaded.audit(training=True)  # TRL and accelerate may cast it
        with part("steps and validations"):
            trainer.fit()
    if ranks.first:
        input_ids, trained = _write(job, trainer, parameters, device)
        with part("reload and compare"):
            del trainer, loaded
            free_memory()
            _check_reload(job, input_ids, trained, device)
        write_json(job.out / "reports" / "timeline.json", timeline())
        report("adapter saved; reloaded from disk it gives the same logits", {})


def _load(job: TrainingJob, device: Device, report: Reporter) -> LoadedModel:
    spec = job.spec
    report(f"loading {spec.base.name} in {spec.quantization.bits} bits on {device.name}, backend {spec.backend}", {})
    with part("load the base model"):
        return backend_named(spec.backend).load(spec, device.name)


def _read_rows(loaded: LoadedModel, job: TrainingJob) -> tuple[list[Row], list[Row]]:
    """Those to train on and those held out; none for GRPO, which has problems instead."""
    if job.grpo:
        return [], []
    counted, (train_file, eval_file) = job.training.completion_only_loss, job.row_files
    with part("rows"):
        rows = read_rows(train_file, loaded.tokenizer, completion_only_loss=counted)
        return rows, read_rows(eval_file, loaded.tokenizer, completion_only_loss=counted)


def _add_adapter(loaded: LoadedModel, job: TrainingJob, report: Reporter) -> list[TargetCount]:
    """A fresh one; the checked table of what is trained."""
    with part("add the adapter"):
        loaded.add_adapter(job.spec.lora, job.training.seed)
    parameters = loaded.audit(training=True)
    sums = totals(parameters)
    report(f"{sums['trainable_parameters']:,} trainable parameters on {sums['modules']} 4-bit layers", {})
    return parameters


def _trainer(
    loaded: LoadedModel,
    job: TrainingJob,
    rows: tuple[list[Row], list[Row]],
    device: Device,
    ranks: Ranks,
    report: Reporter,
) -> "AdapterTrainer":
    with part("imports of the trainer"):
        from ernie_pipeline.training.config import trainer_config  # after the backend's own imports
        from ernie_pipeline.training.trainer import AdapterTrainer

    if job.grpo:
        trainer: AdapterTrainer = import_module(GRPO).grpo_trainer(loaded, job, device, ranks, report)
        return trainer
    plan = Plan(job.training, *rows)
    with part("trainer"):
        return AdapterTrainer(
            loaded,
            trainer_config(job.training, len(plan.steps), device=device.name),
            plan,
            ranks=ranks,
            saved=Saved(job.checkpoints, run_key(job.spec, job.training, *rows), ranks, report),
            report=report,
            execution=device.execution,
        )


def _write(
    job: TrainingJob, trainer: "AdapterTrainer", parameters: Sequence[TargetCount], device: Device
) -> tuple[list[int], torch.Tensor]:
    """Fill the job's folder; the tokens of a held-out row, and the trained model's logits for them."""
    loaded, out = trainer.loaded, job.out
    with part("save the adapter"):
        loaded.save_adapter(out / "adapter")
    write_json(out / "parameters.json", [asdict(row) for row in parameters])
    write_json(out / "curve.json", trainer.progress.curve)
    input_ids = trainer.plan.eval_rows[0].ids
    with part("logits with and without the adapter"):
        trained = loaded.logits(input_ids)
        with loaded.without_adapter():
            change = (trained - loaded.logits(input_ids)).abs().max().item()
    (out / "reports").mkdir()
    write_json(out / "reports" / "speed.json", trainer.progress.speed)
    facts = {
        "backend": job.spec.backend,
        **_facts(trainer, device),
        **trainer.backend.facts(),
        **totals(parameters),
        "logit_change": change,
    }
    write_json(out / "reports" / "run.json", facts)
    return input_ids, trained


def _check_reload(job: TrainingJob, input_ids: Sequence[int], trained: torch.Tensor, device: Device) -> None:
    """The adapter from disk, on a fresh base, must give the logits of the one that was trained."""
    spec = job.spec.model_copy(update={"adapter": job.out / "adapter"})
    reloaded = backend_named(spec.backend).load(spec, device.name)
    difference = (reloaded.logits(input_ids) - trained).abs().max().item()
    if difference > RELOADED_WITHIN * trained.abs().max().item():
        raise PipelineError(
            f"the saved adapter is not the trained one: reloaded, its logits differ by up to {difference:.3g}; "
            "nothing was stored, please report this with the recipe"
        )


def _facts(trainer: "AdapterTrainer", device: Device) -> dict[str, object]:
    progress, plan = trainer.progress, trainer.plan
    on_gpu = device.name != "cpu"
    return {
        "device": device.description,
        "execution": device.execution.model_dump(mode="json"),
        "processes": trainer.ranks.size,
        "peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "train_rows": len(plan.rows),
        "eval_rows": len(plan.eval_rows),
        "samples": sum(map(len, plan.steps)),
        "tokens": progress.tokens,
        "tokens_per_s": round(progress.tokens_per_s, 1),
        "padding_share": round(trainer.padding_share, 4),
        "best_step": trainer.best["step"],
        "kept_step": trainer.best["step"] if plan.settings.keep == "best" else progress.step,
        "resumed_from": trainer.resumed_from,
        **trainer.facts_of_method(),
    }


def _silent(line: str, values: dict[str, object]) -> None:
    """What ranks other than the first have to say."""

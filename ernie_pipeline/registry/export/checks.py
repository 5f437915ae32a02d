"""An export loaded back and held against what it has to compute: logits, answers, and each tensor in its place."""

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from ernie_pipeline.registry.export.load_plain import Computed, PlainAnswer, PlainRequest, distance, load_plain
from ernie_pipeline.registry.export.material import Material
from ernie_pipeline.registry.export.merge import Onto
from ernie_pipeline.registry.export.merged_form import check_weights
from ernie_pipeline.registry.export.readme import Report
from ernie_pipeline.registry.export.reference import Dense, ask, load_measured
from ernie_pipeline.utils.errors import PipelineError

TOLERANCES = {"float32": 1e-5, "bfloat16": 0.05}
"""How far logits may be from those of the same weights by other code (`Distance.share`), by the dtype of both."""
BF16_TOLERANCE = TOLERANCES["bfloat16"]
"""How far those of weights in bf16 may be from those of weights that are not rounded."""
SPARE = 1.4
"""Free memory that a model in fp32 needs, as a multiple of its weights."""


def check_adapter_form(material: Material, folder: Path, for_unsloth: Path | None, scratch: Path) -> Report:
    """Load `folder` by plain PEFT onto the original base. Raises `PipelineError` unless it is what it should be.

    `for_unsloth`: the same adapter in Unsloth's form, which is loaded too where Unsloth can be.
    """
    dtype = _dtype(material)
    measured = ask_measured(material)
    with_original = _dense(material, dtype).onto("original").logits(material.probe.prompts)
    found, placed = _loaded("peft", folder, material, dtype, scratch)
    _all_placed(placed)
    apart = distance(found.logits, with_original)
    if not apart.share <= TOLERANCES[dtype]:
        raise PipelineError(
            f"PEFT loads the adapter to another model: its logits differ by {apart.share:.2%} from base plus adapter, "
            f"tolerated are {TOLERANCES[dtype]:.2g}; export it merged"
        )
    figures: dict[str, float | int | str] = {
        "tensors": placed.tensors,
        "tensors_placed": placed.placed,
        "logits_differ": apart.most,
        "logits_differ_share": apart.share,
        "dtype": dtype,
        **against_measured(measured, found),
    }
    sentences = [
        f"Loaded by plain PEFT in a process without ernie_pipeline: all {placed.tensors} tensors found their place.",
        f"Its logits are those of base plus adapter, added weight by weight, within {apart.most:.2g} ({dtype}).",
        _measured_sentence(figures, "the base in 4 bits, as the adapter was trained and measured, which this is not"),
    ]
    if for_unsloth is None:
        return Report(True, sentences, figures)
    return _by_unsloth(material, for_unsloth, measured, sentences, figures, scratch)


def _by_unsloth(
    material: Material,
    folder: Path,
    measured: Computed | None,
    sentences: list[str],
    figures: dict[str, float | int | str],
    scratch: Path,
) -> Report:
    from importlib.util import find_spec

    sentences = ["The tensors are bit for bit those of `export peft`; of that form it holds:", *sentences]
    if not torch.cuda.is_available() or find_spec("unsloth") is None:
        lacks = "a CUDA device" if not torch.cuda.is_available() else "the package unsloth"
        told = f"It was NOT loaded by Unsloth: that needs {lacks}, and the machine that exported it has none."
        return Report(False, [told, *sentences], figures)
    found, placed = _loaded("unsloth", folder, material, "bfloat16", scratch)
    _all_placed(placed)
    if measured is None:
        raise PipelineError("the model could not be loaded as it was measured, so Unsloth's has nothing to be held to")
    apart = distance(found.logits, measured.logits)
    if not apart.share <= BF16_TOLERANCE:
        raise PipelineError(
            f"Unsloth loads the adapter to another model: its logits differ by {apart.share:.2%} from those measured, "
            f"tolerated are {BF16_TOLERANCE:.0%}"
        )
    told = f"Loaded by Unsloth in 4 bits: all {placed.tensors} tensors, logits within {apart.most:.2g} of the measured."
    return Report(True, [told, *sentences], {**figures, "unsloth_logits_differ": apart.most})


def check_merged(material: Material, onto: Onto, folder: Path, scratch: Path) -> Report:
    """Load `folder` by plain transformers. Raises `PipelineError` unless it computes base plus adapter but for bf16."""
    check_weights(material, onto, folder)
    dtype = _dtype(material)
    measured = ask_measured(material)
    dense, exact = _dense(material, dtype), dict[Onto, list[torch.Tensor]]()
    for each in ("quantized", "original"):
        exact[each] = dense.onto(each).logits(material.probe.prompts)
    del dense
    found, placed = _loaded("merged", folder, material, dtype, scratch)
    _all_placed(placed)
    rounding, bases = distance(found.logits, exact[onto]), distance(exact["original"], exact["quantized"])
    if not rounding.share <= BF16_TOLERANCE:
        raise PipelineError(
            f"the merged model, loaded back, is not base plus adapter: its logits differ by {rounding.share:.2%}, and "
            f"rounding to bf16 may make {BF16_TOLERANCE:.0%}"
        )
    figures: dict[str, float | int | str] = {
        "parameters": placed.tensors,
        "logits_differ_by_rounding": rounding.most,
        "logits_differ_by_rounding_share": rounding.share,
        "logits_differ_quantized_original": bases.most,
        "logits_differ_quantized_original_share": bases.share,
        "dtype": dtype,
        **against_measured(measured, found),
    }
    if onto == "quantized" and not float(figures.get("measured_logits_differ_share", 0)) <= BF16_TOLERANCE:
        raise PipelineError(
            f"the merged model's logits differ by {figures['measured_logits_differ_share']:.2%} from those measured, "
            f"tolerated are {BF16_TOLERANCE:.0%}"
        )
    return Report(True, _merged_sentences(figures, onto), figures)


def _merged_sentences(figures: dict[str, float | int | str], onto: Onto) -> list[str]:
    return [
        "Loaded by plain transformers in a process without ernie_pipeline: no weight is missing, and none is strange; "
        "read back, each weight is base plus adapter, rounded once.",
        f"Its logits are within {figures['logits_differ_by_rounding']:.2g} of base plus adapter, weight by weight: "
        f"{figures['logits_differ_by_rounding_share']:.2%} of them (both in {figures['dtype']}; bound: "
        f"{BF16_TOLERANCE:.0%} for rounding to bf16).",
        f"Merged onto the {onto} base. Onto the base's 4 bits, dequantized, or onto its original weights: the logits "
        f"of the two differ by up to {figures['logits_differ_quantized_original']:.2g} "
        f"({figures['logits_differ_quantized_original_share']:.2%}); the adapter was trained and "
        "measured on the 4 bits.",
        _measured_sentence(figures, "the 4-bit model with its adapter, as measured"),
    ]


def _measured_sentence(figures: dict[str, float | int | str], what: str) -> str:
    if "measured_logits_differ" not in figures:
        return f"Not compared with {what}: it cannot be loaded on this machine."
    return (
        f"From {what}, its logits differ by up to {figures['measured_logits_differ']:.2g} "
        f"({figures['measured_logits_differ_share']:.2%} of them); "
        f"{figures['answers_alike']} of {figures['answers']} greedy answers are the same."
    )


def ask_measured(material: Material) -> Computed | None:
    """What the model computes as it was measured; None where it cannot be loaded so on this machine."""
    spec = material.source.spec
    if spec.backend == "unsloth" and not torch.cuda.is_available():
        return None
    found = ask(load_measured(spec), material.probe.prompts, material.probe.max_new_tokens)
    gc.collect()  # a model has cycles of references, and the next one wants the memory
    return found


def against_measured(measured: Computed | None, found: Computed) -> dict[str, float | int | str]:
    """How far the logits are apart, and how many answers are the same; nothing where nothing was measured."""
    if measured is None:
        return {}
    alike = sum(a == b for a, b in zip(measured.answers, found.answers, strict=True))
    apart = distance(found.logits, measured.logits)
    both = {"measured_logits_differ": apart.most, "measured_logits_differ_share": apart.share}
    return {**both, "answers": len(found.answers), "answers_alike": alike}


def fill_dense(material: Material, weights: Iterator[tuple[str, torch.Tensor]]) -> Computed:
    """What transformers' model of the base computes with these weights, by the names of the checkpoint."""
    dense, probe = _dense(material, _dtype(material)).fill(weights), material.probe
    answers = dense.answers(probe.prompts, probe.end_tokens, probe.pad_token, probe.max_new_tokens)
    return Computed(dense.logits(probe.prompts), answers)


def _dense(material: Material, dtype: str) -> Dense:
    spec = material.source.spec
    return Dense(spec, material.plan, material.base, material.adapter, getattr(torch, dtype))


def _dtype(material: Material) -> Literal["float32", "bfloat16"]:
    """fp32 where a model in it fits into memory."""
    import math

    import psutil

    values = sum(math.prod(shape) for shape in material.base.shapes.values())
    return "float32" if psutil.virtual_memory().available > SPARE * 4 * values else "bfloat16"


def _loaded(
    form: Literal["peft", "unsloth", "merged"],
    folder: Path,
    material: Material,
    dtype: Literal["float32", "bfloat16"],
    scratch: Path,
) -> tuple[Computed, PlainAnswer]:
    base, probe = material.source.spec.base, material.probe
    gc.collect()
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        request = PlainRequest(
            form=form,
            folder=folder,
            base=base.checkpoint,
            revision=base.revision,
            dtype=dtype,
            device="cuda" if form == "unsloth" else "cpu",
            prompts=probe.prompts,
            max_new_tokens=probe.max_new_tokens,
            end_tokens=probe.end_tokens,
            pad_token=probe.pad_token,
            scratch=Path(own),
        )
        try:
            return load_plain(request)
        except PipelineError as error:
            raise PipelineError(f"the export cannot be loaded back, so nothing is left of it: {error}") from error


def _all_placed(placed: PlainAnswer) -> None:
    if placed.strange or placed.placed != placed.tensors:
        raise PipelineError(
            f"loaded back, {placed.tensors - placed.placed} of {placed.tensors} tensors did not find their place, "
            f"among them {', '.join(placed.strange[:1])}; nothing is left of the export"
        )

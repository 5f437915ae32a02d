"""Generation as an evaluation does it, beside other ways, on one GPU. One RESULT line for each variant.

    python benchmarks/evaluation/generate.py CHECKPOINT [--backend grouped] [--variants ours transformers four_bit]
    python benchmarks/evaluation/generate.py CHECKPOINT --variants lognormal [--sampled 8000 4]
    python benchmarks/evaluation/generate.py CHECKPOINT --variants ours lognormal vllm --repeat 2
    python benchmarks/evaluation/generate.py CHECKPOINT --variants unsloth

CHECKPOINT is a folder with ERNIE-4.5-21B-A3B's shapes; random weights do (benchmarks/full_size/make_checkpoint.py). No
answer ends before it has the asked number of tokens, so speeds are those of full batches, but for `lognormal`, where
that number is another one for each answer. See README.md.
"""

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ernie_pipeline.recipe.sections import Lora, Quantization

Answers = list[list[int]]

PROMPT_TOKENS = (100, 130)
GIB = 2**30
TIE_STEPS = 4
"""Steps of bfloat16 at the highest logit within which two tokens are held for tied."""


def main() -> None:
    options = _options()
    if "unsloth" in options.variants:
        if options.variants != ["unsloth"]:
            raise SystemExit("unsloth changes transformers when it is imported: measure it in a process of its own")
        _unsloth(options)
        return
    from ernie_pipeline.models.device import DeviceLimits, choose_device
    from ernie_pipeline.recipe.execution import ExecutionOverrides

    choose_device(DeviceLimits(memory_gib=options.limit_gib), ExecutionOverrides(), lambda line, values: None)
    start = time.time()
    loaded = _loaded(options)
    model, tokenizer = loaded.module, loaded.tokenizer
    _tell("loaded", backend=options.backend, load_s=round(time.time() - start, 1))
    prompts = _prompts(tokenizer, options.rows)
    if "four_bit" in options.variants:
        _timed("four_bit", options.four_bit, prompts, lambda p, n: _plain(model, tokenizer, p, n))
    answers: Answers = []
    if {"ours", "transformers", "profile", "lognormal"} & set(options.variants):
        answers = _merged(options, model, tokenizer, prompts)
    if "vllm" in options.variants:
        _vllm(options, loaded, prompts, answers)


def _loaded(options: argparse.Namespace) -> Any:
    """The checkpoint in 4 bits with an adapter that changes its answers: a `LoadedModel`."""
    from ernie_pipeline.models import backend_named
    from ernie_pipeline.models.checkpoint.version import checkpoint_version
    from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
    from ernie_pipeline.store.hashing.hash_cache import remembered_sha256

    checkpoint = Path(options.checkpoint).resolve()
    version = checkpoint_version(checkpoint, remembered_sha256)
    spec = ModelSpec(
        backend=options.backend,
        base=BaseCheckpoint(name=str(checkpoint), checkpoint=str(checkpoint), version=version),
        quantization=Quantization(),
        quantized_bases=options.home / "store" / ".bases",
    )
    loaded: Any = backend_named(options.backend).load(spec, "cuda")
    loaded.add_adapter(Lora(), seed=0)
    _with_adapter(loaded.module)
    return loaded


def _merged(options: argparse.Namespace, model: Any, tokenizer: Any, prompts: list[str]) -> Answers:
    """What is measured with the merged model: ours, transformers' own `generate`, and how far their answers agree.

    Our greedy answers, if they were asked for."""
    import torch

    from ernie_pipeline.models.checkpoint.tokenizer import token_ids
    from ernie_pipeline.models.generation.generate import generate_tokens
    from ernie_pipeline.models.generation.merged import fast_generator

    start = time.time()
    unlike = "lognormal" in options.variants
    number, longest = (options.slots, 2048) if unlike else (len(prompts), options.new_tokens)
    merged, kind = fast_generator(model, number, PROMPT_TOKENS[1] + longest)
    torch.cuda.synchronize()
    _tell("merged", kind=kind, merge_s=round(time.time() - start, 1), allocated_gib=_gib(torch.cuda.memory_allocated()))
    if merged is model:
        raise SystemExit("the merged model does not fit beside the 4-bit one, or no device captures its steps")
    merged.generation_config.eos_token_id = None

    def ours(texts: Sequence[str], new_tokens: int) -> Answers:
        ids = token_ids(tokenizer, texts)
        return generate_tokens(
            merged, ids, max_new_tokens=new_tokens, pad_token_id=tokenizer.pad_token_id, end_tokens=[], rows=1
        ).tokens

    if unlike:
        from unlike_lengths import measure

        texts = _prompts(tokenizer, options.sampled[0])
        measure(merged, token_ids(tokenizer, texts), options.sampled[1], options.slots, options.new_tokens, _tell)
    if "profile" in options.variants:
        _profile(merged, tokenizer, prompts)
    answers: Answers = []
    if "ours" in options.variants:
        for _ in range(options.repeat):
            answers = _timed("ours", (options.rows, options.new_tokens), prompts, ours)
    if "transformers" in options.variants:
        rows, new_tokens = options.transformers
        theirs = _timed("transformers", options.transformers, prompts, lambda p, n: _plain(merged, tokenizer, p, n))
        answers = answers or ours(prompts[:rows], new_tokens)
        _agreement("ours and transformers", merged, tokenizer, prompts[:rows], answers, theirs)
        half = _plain(merged, tokenizer, prompts[: rows // 2], new_tokens)
        _agreement("transformers and itself in half the batch", merged, tokenizer, prompts[: rows // 2], half, theirs)
    return answers


def _vllm(options: argparse.Namespace, loaded: Any, prompts: list[str], ours: Answers) -> None:
    """By vLLM, once the merged model is gone: each has the card to itself, but for the 4-bit model."""
    from by_vllm import measure
    from unlike_lengths import work_of

    from ernie_pipeline.models.checkpoint.tokenizer import token_ids

    unlike = None
    if "lognormal" in options.variants:
        unlike = work_of(
            token_ids(loaded.tokenizer, _prompts(loaded.tokenizer, options.sampled[0])), options.sampled[1]
        )
    measure(loaded, token_ids(loaded.tokenizer, prompts), ours, options, unlike, _tell)


def _unsloth(options: argparse.Namespace) -> None:
    from unsloth import FastModel  # before transformers

    from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer

    start = time.time()
    model, _ = FastModel.from_pretrained(options.checkpoint, max_seq_length=2048, load_in_4bit=True)
    model = FastModel.for_inference(model) or model
    tokenizer = load_tokenizer(options.checkpoint)
    _tell("loaded", backend="unsloth's own", load_s=round(time.time() - start, 1))
    prompts = _prompts(tokenizer, options.unsloth[0])
    for _ in range(options.repeat):
        _timed("unsloth", options.unsloth, prompts, lambda p, n: _plain(model, tokenizer, p, n))


def _plain(model: Any, tokenizer: Any, prompts: Sequence[str], new_tokens: int) -> Answers:
    """The model's own `generate`, all prompts as one batch."""
    import torch

    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False).to("cuda")
    with torch.inference_mode():
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
        )
    answers: Answers = output[:, batch["input_ids"].shape[1] :].tolist()
    return answers


def _timed(
    variant: str, size: Sequence[int], prompts: list[str], answer: Callable[[Sequence[str], int], Answers]
) -> Answers:
    """Run and report one variant on the first `size[0]` prompts, with `size[1]` new tokens each."""
    import torch

    rows, new_tokens = size
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.time()
    answers = answer(prompts[:rows], new_tokens)
    torch.cuda.synchronize()
    seconds, tokens = time.time() - start, sum(map(len, answers))
    _tell(
        variant,
        rows=rows,
        new_tokens=new_tokens,
        seconds=round(seconds, 2),
        tokens_per_s=round(tokens / seconds, 1),
        complete=tokens == rows * new_tokens,
        peak_gib=_gib(torch.cuda.max_memory_allocated()),
        reserved_gib=_gib(torch.cuda.max_memory_reserved()),
        device=torch.cuda.get_device_name(),
    )
    return answers


def _agreement(pair: str, model: Any, tokenizer: Any, prompts: list[str], found: Answers, wanted: Answers) -> None:
    """Where two greedy answers first differ: how far apart the two tokens' logits are in one pass over what they share.

    A gap within `TIE_STEPS` steps of bfloat16 is a tie; others are listed.
    """
    import torch

    from ernie_pipeline.models.checkpoint.tokenizer import token_ids

    gaps: list[dict[str, Any]] = []
    for row, (prompt, a, b) in enumerate(zip(token_ids(tokenizer, prompts), found, wanted, strict=False)):
        step = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), None)
        if step is None:
            continue
        with torch.inference_mode():
            ids = torch.tensor([prompt + a[:step]], device="cuda")
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        steps = (logits[a[step]] - logits[b[step]]).abs() / _bfloat16_step(logits.max())
        gaps.append({"row": row, "step": step, "gap": round(float(steps), 2)})
    rows, worst = min(len(found), len(wanted)), sorted(gaps, key=lambda gap: -gap["gap"])
    _tell(
        "agreement",
        of=pair,
        rows=rows,
        same=rows - len(gaps),
        tied=sum(gap["gap"] <= TIE_STEPS for gap in gaps),
        not_tied=[gap for gap in worst if gap["gap"] > TIE_STEPS],
        median_gap=worst[len(worst) // 2]["gap"] if worst else None,
        first_difference_at=min((gap["step"] for gap in gaps), default=None),
    )


def _bfloat16_step(logit: Any) -> Any:
    """The distance of a bfloat16 number from the next one."""
    import torch

    return 2.0 ** (torch.floor(torch.log2(logit.abs())) - 7)


def _profile(merged: Any, tokenizer: Any, prompts: list[str]) -> None:
    """Which kernels the steps of decoding spend their time in: 8 steps of all rows, not captured."""
    import torch

    from ernie_pipeline.models.checkpoint.tokenizer import token_ids
    from ernie_pipeline.models.generation.decode import decode

    ids = token_ids(tokenizer, prompts)
    for steps in (2, 10):  # the first to load the kernels
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            decode(merged, ids, max_new_tokens=steps, end_tokens=[], rows=len(ids), capture=False)
    print(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=30, max_name_column_width=90))


def _with_adapter(model: Any) -> Any:
    """A fresh adapter changes nothing: give it something to add."""
    import torch

    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.002)
    return model.eval()


def _prompts(tokenizer: Any, number: int) -> list[str]:
    """Random arithmetic of 100 to 130 tokens."""
    generator = random.Random(0)
    prompts = []
    for _ in range(number):
        text, wanted = "", generator.randint(*PROMPT_TOKENS)
        ids: list[int] = []
        while len(ids) < wanted:
            text += f"{generator.choice(['What is', 'Add', 'Solve'])} {generator.randint(1, 999)} + "
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompts.append(tokenizer.decode(ids[:wanted]))
    return prompts


def _tell(variant: str, **values: Any) -> None:
    print("RESULT " + json.dumps({"variant": variant, **values}), flush=True)


def _gib(number: int) -> float:
    return round(number / GIB, 2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = {"type": int, "nargs": 2, "metavar": ("ROWS", "NEW_TOKENS")}
    parser.add_argument("checkpoint")
    home = Path(tempfile.gettempdir()) / "ernie-benchmark"
    parser.add_argument("--home", type=Path, default=home, help="a pipeline's home, for its quantized base")
    parser.add_argument("--backend", default="grouped", choices=["peft", "grouped"])
    variants = ["ours", "transformers", "four_bit", "profile", "lognormal", "vllm", "unsloth"]
    parser.add_argument("--variants", nargs="+", default=variants[:3], choices=variants)
    parser.add_argument("--rows", type=int, default=400, help="prompts that ours answers")
    parser.add_argument("--new-tokens", type=int, default=512, help="tokens of each of its answers")
    sampled = {"default": [2000, 4], "metavar": ("PROMPTS", "SAMPLES")}
    parser.add_argument("--sampled", help="of lognormal, before which a full batch goes", **size | sampled)
    parser.add_argument("--slots", type=int, default=400, help="rows that lognormal decodes at once, if they fit")
    parser.add_argument("--limit-gib", type=float, help="GPU memory that may be taken; all of it by default")
    parser.add_argument("--repeat", type=int, default=1, help="times that ours, vllm's or unsloth's is measured")
    more = "further arguments of vLLM's engine, as JSON"
    parser.add_argument("--vllm-arguments", type=json.loads, default={}, help=more)
    parser.add_argument("--transformers", default=[64, 128], help="its prompts and new tokens", **size)
    parser.add_argument("--four-bit", default=[64, 16], help="the 4-bit model's", **size)
    parser.add_argument("--unsloth", default=[64, 128], help="unsloth's", **size)
    return parser.parse_args()


if __name__ == "__main__":
    main()

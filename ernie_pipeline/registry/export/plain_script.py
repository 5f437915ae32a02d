"""The child's side of `load_plain.py`, run by `child_process.ask_script`.

It imports nothing of its package, and makes sure that nothing it uses can.
"""

import logging
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.modules["ernie_pipeline"] = None  # type: ignore[assignment]
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a kernel of the hub's, which is not needed
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _load(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model, and what of the files found its place."""
    import torch

    folder = request["folder"]
    if request["form"] == "unsloth":
        model = _by_unsloth(folder, request["scratch"])
        return model, _placed(model, folder)
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, request["dtype"])
    if request["form"] == "merged":
        model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        strange = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in loading[kind]]
        count = sum(1 for _ in model.parameters())
        return model.to(request["device"]), {"placed": count - len(strange), "tensors": count, "strange": strange}
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(request["base"], revision=request["revision"], dtype=dtype)
    model = PeftModel.from_pretrained(base.to(request["device"]), folder)
    return model, _placed(model, folder)


def _by_unsloth(folder: str, scratch: str) -> Any:
    """It has to be imported before transformers, calls home, and compiles into the working directory."""
    os.environ |= {"UNSLOTH_DISABLE_STATISTICS": "1", "UNSLOTH_COMPILE_LOCATION": str(Path(scratch, "compiled"))}
    os.chdir(scratch)
    from unsloth import FastModel

    model, _ = FastModel.from_pretrained(folder, load_in_4bit=True, use_exact_model_name=True)
    FastModel.for_inference(model)
    return model


def _placed(model: Any, folder: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    saved = load_file(Path(folder, "adapter_model.safetensors"))
    found = {name.replace(".default.", "."): p for name, p in model.named_parameters() if "lora_" in name}
    alike = [
        name
        for name in saved.keys() & found.keys()
        if saved[name].shape == found[name].shape and torch.equal(saved[name], found[name].detach().float().cpu())
    ]
    strange = sorted((saved.keys() | found.keys()) - {*alike})
    return {"placed": len(alike), "tensors": len(saved), "strange": strange[:5]}


def answer(**request: Any) -> dict[str, Any]:
    """The fields of `PlainAnswer`."""
    import torch
    from safetensors.torch import save_file

    warnings.simplefilter("ignore")
    model, found = _load(request)
    model.eval()
    logits, answers = {}, []
    # Unsloth holds the adapter in fp32 beside 4-bit layers
    casting = torch.autocast("cuda", dtype=torch.bfloat16) if request["form"] == "unsloth" else nullcontext()
    for number, prompt in enumerate(request["prompts"]):
        ids = torch.tensor([prompt], device=request["device"])
        with torch.no_grad(), casting:
            logits[str(number)] = model(input_ids=ids, use_cache=False).logits[0].float().cpu().contiguous()
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                num_beams=1,
                max_length=None,
                max_new_tokens=request["max_new_tokens"],
                eos_token_id=request["end_tokens"],
                pad_token_id=request["pad_token"],
            )
        answers.append(made[0, len(prompt) :].tolist())
    save_file(logits, Path(request["scratch"], "logits.safetensors"))
    return {"answers": answers, **found}

"""An exported folder in others' hands: `vllm serve` answers a suite from it, and transformers answers it too.

    ernie export merged FOLDER
    python benchmarks/evaluation/exported.py FOLDER PREDICTIONS.parquet [--python PYTHON_WITH_VLLM]

PREDICTIONS is the evaluation's own of that model (`<home>/store/adapter_evaluation/*/predictions.parquet`). Nothing
of ernie_pipeline is imported. Prints a line `RESULT {json}`: how many greedy answers are alike, how many have the same
box, and how far the log-probabilities of vLLM's tokens are from those that transformers gives them.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

PORT = 8911
NEW_TOKENS = 112


def instruction(folder: Path) -> str:
    """What the folder's README says was before each question."""
    found = re.search(r'instruction, a JSON string: `(".*")`', (folder / "README.md").read_text())
    return str(json.loads(found.group(1))) if found else ""


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """One request to the server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        text = response.read()
    return json.loads(text) if text else None


def served(folder: Path, python: str, contents: list[str]) -> tuple[list[dict[str, Any]], float]:
    """The choices of `vllm serve FOLDER` for each message, and the seconds until it was ready."""
    command = [python, "-m", "vllm.entrypoints.cli.main", "serve", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(PORT), "--served-model-name", "exported", "--gpu-memory-utilization", "0.15"]
    start = time.time()
    server = subprocess.Popen([*command, "--enforce-eager", "--max-model-len", "1024"], stdout=sys.stderr)
    try:
        while True:
            try:
                ask("/health")
                break
            except OSError:
                if server.poll() is not None or time.time() - start > 300:
                    sys.exit("vllm serve did not start")
                time.sleep(1)
        ready = time.time() - start

        def choice(content: str) -> dict[str, Any]:
            body = {"model": "exported", "messages": [{"role": "user", "content": content}], "temperature": 0}
            body |= {"max_tokens": NEW_TOKENS, "logprobs": True, "return_token_ids": True}
            own: dict[str, Any] = ask("/v1/chat/completions", body)["choices"][0]
            return own

        with ThreadPoolExecutor(32) as threads:
            return list(threads.map(choice, contents)), ready
    finally:
        server.terminate()
        server.wait(60)


def by_transformers(folder: Path, contents: list[str], choices: list[dict[str, Any]]) -> tuple[list[str], list[float]]:
    """Its greedy answers, and by how much its log-probability of each of vLLM's tokens differs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to("cuda").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers, apart = [], []
    for content, choice in zip(contents, choices, strict=True):
        messages = [{"role": "user", "content": content}]
        options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        inputs = tokenizer.apply_chat_template(messages, **options).to("cuda")
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            answers.append(tokenizer.decode(out[0][length:], skip_special_tokens=True))
            told = torch.tensor([choice["token_ids"]], device="cuda")
            logits = model(torch.cat([inputs["input_ids"], told], dim=1)).logits[0, length - 1 : -1].float()
        own = logits.log_softmax(-1).gather(1, told[0][:, None])[:, 0].tolist()
        theirs = [each["logprob"] for each in choice["logprobs"]["content"]]
        apart += [abs(a - b) for a, b in zip(own, theirs, strict=True)]
    return answers, apart


def boxed(answer: str) -> str | None:
    """What stands in the last box."""
    found = re.findall(r"\\boxed\{([^{}]*)\}", answer)
    return found[-1] if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rows", type=int, help="the first ones, by default all")
    asked = parser.parse_args()
    rows = pq.read_table(asked.predictions, columns=["question", "prediction"]).to_pylist()[: asked.rows]
    contents = [instruction(asked.folder) + row["question"] for row in rows]
    measured = [row["prediction"] for row in rows]
    os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1")
    os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"  # it would be compiled first
    choices, ready = served(asked.folder, asked.python, contents)
    vllm = [choice["message"]["content"] for choice in choices]
    transformers, apart = by_transformers(asked.folder, contents, choices)
    pairs = {"vllm_and_measured": (vllm, measured), "vllm_and_transformers": (vllm, transformers)}
    pairs["transformers_and_measured"] = (transformers, measured)
    result: dict[str, Any] = {"rows": len(rows), "ready_s": round(ready, 1), "tokens": len(apart)}
    for name, (one, other) in pairs.items():
        both = list(zip(one, other, strict=True))
        result[f"{name}_alike"] = sum(a == b for a, b in both)
        result[f"{name}_same_box"] = sum(boxed(a) == boxed(b) for a, b in both)
    result |= {"logprobs_differ_mean": sum(apart) / len(apart), "logprobs_differ_most": max(apart)}
    print("RESULT " + json.dumps({**result, "device": torch.cuda.get_device_name()}), flush=True)


if __name__ == "__main__":
    main()

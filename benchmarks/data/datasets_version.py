"""Read, filter, template and write with plain `datasets`, as its documentation teaches it.

All rules that look at one row are one batched `filter`: one pass over the rows, not one for each rule.
No near duplicates, no decontamination, no ledger of what was dropped.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from job import Job
from rules import RULES, bare_answer, key
from transformers import AutoTokenizer

datasets.disable_progress_bars()


def prepare(checkpoint: Path) -> Any:
    """The tokenizer; not timed, for neither version."""
    return AutoTokenizer.from_pretrained(checkpoint)


def run(job: Job, tokenizer: Any) -> int:
    """Source file to training and evaluation Parquet; the number of rows in both."""
    processes = job.processes if job.processes > 1 else None
    if processes:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # workers are forked
    rules = [rule for rule in RULES if rule.__name__ not in job.skip]
    rows = datasets.load_dataset("json", data_files=str(job.source), split="train", cache_dir=str(job.out / "cache"))
    rows = rows.map(_with_answer_and_key, batched=True, num_proc=processes)
    rows = rows.filter(
        _fits, batched=True, num_proc=processes, input_columns=["question", "answer"], fn_kwargs={"rules": rules}
    )
    if "conflicting_answers" not in job.skip:
        conflicting = _conflicting(rows)
        rows = rows.filter(lambda keys: [key not in conflicting for key in keys], batched=True, input_columns=["key"])
    rows = rows.filter(_first_seen(), batched=True, input_columns=["key"])
    rows = rows.map(
        _templated,
        batched=True,
        num_proc=processes,
        remove_columns=["responses_create_params", "key"],
        fn_kwargs={"tokenizer": tokenizer, "count_tokens": job.count_tokens},
    )
    if job.count_tokens:
        rows = rows.filter(
            lambda counts: [count <= job.max_tokens for count in counts], batched=True, input_columns=["tokens"]
        )
    parts = rows.train_test_split(test_size=job.eval_fraction, seed=job.seed)
    parts["train"].to_parquet(str(job.out / "train.parquet"))
    parts["test"].to_parquet(str(job.out / "eval.parquet"))
    return len(rows)


def _with_answer_and_key(batch: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {
        "answer": [bare_answer(answer or "") for answer in batch["expected_answer"]],
        "key": [key(question or "") for question in batch["question"]],
    }


def _fits(questions: list[str | None], answers: list[str], rules: list[Callable[[str, str], bool]]) -> list[bool]:
    return [
        not any(rule(question or "", answer) for rule in rules)
        for question, answer in zip(questions, answers, strict=True)
    ]


def _conflicting(rows: Any) -> set[str]:
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for batch in rows.select_columns(["key", "answer"]).iter(1000):
        for question, answer in zip(batch["key"], batch["answer"], strict=True):
            answers[question].add("".join(answer.split()))
    return {question for question, given in answers.items() if len(given) > 1}


def _first_seen() -> Callable[[list[str]], list[bool]]:
    seen: set[str] = set()

    def is_first(keys: list[str]) -> list[bool]:
        verdicts = []
        for text in keys:
            verdicts.append(text not in seen)
            seen.add(text)
        return verdicts

    return is_first


def _templated(batch: dict[str, list[Any]], tokenizer: Any, count_tokens: bool) -> dict[str, list[Any]]:
    prompts = [parameters["input"] for parameters in batch["responses_create_params"]]
    completions = [[{"role": "assistant", "content": f"\\boxed{{{answer}}}"}] for answer in batch["answer"]]
    chats = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    prompt_texts = tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    columns: dict[str, list[Any]] = {
        "prompt": prompts,
        "completion": completions,
        "prompt_text": prompt_texts,
        "completion_text": [text[len(prompt) :] for text, prompt in zip(texts, prompt_texts, strict=True)],
    }
    if count_tokens:
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
        columns["tokens"] = [len(ids) for ids in encoded["input_ids"]]
    return columns

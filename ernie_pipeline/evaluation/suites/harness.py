r"""A suite as a task of EleutherAI's lm-evaluation-harness, to hear from others how good a model is.

The task has the suite's own problems from a local file, prompts as both models read them, greedy answers, and the
harness' own judgement: the last `\boxed{}` against the reference answer, as text, as in its GSM8K. So it is right less
often than our grader says, where an answer is spelled otherwise. `python -m ernie_pipeline.evaluation.suites.harness`
writes it; the model comes from `ernie export merged OUT`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ernie_pipeline.evaluation.suites.attempts import read_problems
from ernie_pipeline.utils.errors import PipelineError, first_line
from ernie_pipeline.utils.json_file import write_json

BOXED = r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"


def write_task(problems: Path, name: str, max_new_tokens: int, folder: Path) -> Path:
    """Write the task `name` of an artifact's `problems` into `folder`: NAME.yaml, which is returned, and NAME.jsonl.

    Raises `PipelineError` for a folder that holds no problems.
    """
    try:
        asked = read_problems(problems / "problems.parquet")
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{problems} holds no suite's problems ({first_line(error)}); give the folder of an artifact of "
            "suite_NAME_problems"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    rows, task = folder.absolute() / f"{name}.jsonl", folder / f"{name}.yaml"
    lines = [json.dumps({"row_id": p.row_id, "prompt": p.prompt_text, "answer": p.answer}) for p in asked]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(task, _task(name, rows, max_new_tokens))  # JSON is YAML
    return task


def _task(name: str, rows: Path, max_new_tokens: int) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "num_fewshot": 0,
        # the harness adds the end token; without the key it would stop at two ends of a line
        "generation_kwargs": {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
        "filter_list": [
            {
                "name": "boxed",
                "filter": [
                    {"function": "regex", "regex_pattern": BOXED, "group_select": -1},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "regexes_to_ignore": [",", r"\\\$", r"\$", r"\s", r"\.$"],
            }
        ],
        "metadata": {"version": 1.0},
    }


def main(arguments: list[str] | None = None) -> int:
    """Write a task, and say how it is run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ernie_pipeline.evaluation.suites.harness")
    parser.add_argument("problems", type=Path, help="the folder of an artifact of suite_NAME_problems")
    parser.add_argument("folder", type=Path, help="where the task is written")
    parser.add_argument("--name", default="suite", help="of the task (suite)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="as the suite has it (512)")
    options = parser.parse_args(arguments)
    try:
        write_task(options.problems, options.name, options.max_new_tokens, options.folder)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"lm_eval --model hf --model_args pretrained=OUT --tasks {options.name} --include_path {options.folder} "
        "# OUT: of ernie export merged OUT"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

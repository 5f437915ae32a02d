"""The recipe's suites: sets of problems that both models answer, greedily and sampled."""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from ernie_pipeline.recipe.extract import EXTRACT, what_is_wrong
from ernie_pipeline.recipe.section import Natural, Positive, Section

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Of a suite: its assets are called by it, and so are folders, whose names file systems limit."""
COMMIT = re.compile(r"[0-9a-f]{40}")
INSTRUCTION = "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n"
"""What stands before every question that the models are trained on: nvidia/Nemotron-RL-math-OpenMathReasoning's."""

FORMER = {"after_hashes": "after ####", "boxed": "boxed"}
"""`extract` for the values of the key `reference`, as it was called before."""

Temperature = Annotated[float, Field(ge=0.01)]
"""Of sampling. Much lower, logits divided by it are no numbers in fp32; and long before that all samples are alike."""
Column = Annotated[str, Field(min_length=1)]


class SuiteSource(Section):
    """Where a suite's rows are: a file, or a data set of the hub at a commit."""

    path: str = Field("", description="JSONL or a JSON array, CSV, TSV (these also .gz or .zst), Parquet or Arrow")
    dataset: str = Field("", description='the data set\'s id on the hub, such as "openai/gsm8k"')
    config: str = Field("", description="of the data set, where it has several")
    split: str = Field("test", description="of the data set")
    commit: str = Field("", description="of the data set: 40 hex digits")

    @model_validator(mode="after")
    def _one_place(self) -> "SuiteSource":  # what is said goes on behind "suites.NAME.source"
        if bool(self.path) == bool(self.dataset):
            named = "both a path and a dataset" if self.path else "neither a path nor a dataset"
            raise ValueError(f"names {named}; give it one of them")
        if self.path and (self.config or self.commit):
            raise ValueError(f"is the file {self.path}, which has no config and no commit; drop them")
        if self.dataset and not COMMIT.fullmatch(self.commit):
            given = f"commit = {self.commit!r}, which is none" if self.commit else "no commit"
            raise ValueError(
                f"is the data set {self.dataset} with {given}; give the 40 hex digits of one, as its page on the hub "
                'lists them ("Files and versions", "History"), so that the suite stays the same'
            )
        return self


class SuiteColumns(Section):
    """Which problems a suite has, and how they are read."""

    question: Column | Annotated[tuple[Column, ...], Field(min_length=1)] = Field(
        "question", description="the column; of several, joined by a space"
    )
    answer: Column = Field(
        "answer",
        description="the column of the reference answer: text, a number, or a list, all of which is the answer",
    )
    extract: str = Field("", description=EXTRACT)
    level: str = Field("", description="the column of the problem's level, if there is one")
    subject: str = Field("", description="the column of its subject, if there is one")
    instruction: str = Field(INSTRUCTION, description="what stands before the question")
    rows: Natural = Field(0, description="problems to answer, chosen by a hash of each; 0 means all")
    max_bad_rows: Natural = Field(0, description="rows without a question or an answer that are left out at most")

    @field_validator("extract")
    @classmethod
    def _extract_can_be_used(cls, extract: str) -> str:
        if wrong := what_is_wrong(extract):
            raise ValueError(f"= {extract!r} {wrong}")
        return extract


class SuiteAnswers(Section):
    """How a suite's problems are answered: once greedily, and `samples` times at the temperature."""

    max_new_tokens: Positive = 512
    samples: Natural = Field(0, description="sampled answers to each problem, for avg@n, pass@k and maj@k")
    temperature: Temperature = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Natural = 3407
    grading_timeout_s: Annotated[float, Field(gt=0)] = 5.0


class Suite(SuiteColumns, SuiteAnswers):
    """A set of problems, read, answered and graded for itself."""

    source: SuiteSource


def former_key(value: object) -> str:
    """What to do about a suite's key `reference`, which said before where the answer stands, in a sentence's rest."""
    now = FORMER.get(str(value))
    cure = f'write extract = "{now}"' if now else "leave both out: text, numbers and lists are read as they are"
    return f"is called extract now; {cure}"


def check_names(names: list[str]) -> None:
    """Raise `ValueError` for a suite's name that cannot be an asset's."""
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"suites.{name}: a suite is named by small letters, digits and _, a letter first, 64 at most, such as "
                "math_500; rename it"
            )

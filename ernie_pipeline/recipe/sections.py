"""The recipe: everything that changes what is built, as one frozen, typed value read from TOML.

A recipe never says where something runs; that is `settings.py`. How it is computed is said in its table `[execution]`,
which is in no fingerprint. Each stage's fingerprint covers the recipe sections that the stage reads, so a key belongs
to the section of the stage that it changes.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ernie_pipeline.recipe.execution import ExecutionOverrides
from ernie_pipeline.recipe.extract import EXTRACT, what_is_wrong
from ernie_pipeline.recipe.section import Natural, Positive, Section, Share
from ernie_pipeline.recipe.suites import INSTRUCTION, Suite, Temperature, check_names

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The reference's seven LoRA targets: attention, and the MLPs of the dense layer, shared and routed experts."""


class Source(Section):
    """Where the raw rows come from, which columns hold question and answer, and how many broken rows are tolerated.

    Without `question` and `messages`, rows have the schema of nvidia/Nemotron-RL-math-OpenMathReasoning. Columns may
    lie in others: "reward_model.ground_truth".
    """

    kind: Literal["demo", "file", "hub"] = "demo"
    path: str = Field(
        "", description="kind=file: JSONL or a JSON array, CSV, TSV (these also .gz or .zst), Parquet or Arrow"
    )
    dataset: str = Field("", description="kind=hub: the data set's id")
    config: str = Field("", description="kind=hub: of the data set, where it has several")
    revision: str = Field("main", description="kind=hub: branch, tag or commit; resolved to a commit before use")
    split: str = "train"
    rows: Positive = Field(3000, description="kind=demo: how many problems are generated")
    seed: Natural = Field(0, description="kind=demo: seed of the generator")
    max_bad_rows: Natural = Field(0, description="broken rows tolerated (and left out) before the asset fails")
    question: str = Field("", description="the column of the question")
    answer: str = Field("", description="the column of the reference answer: text, or a number")
    messages: str = Field(
        "",
        description="the column of a chat's turns, of which the last user's is the question, and the last"
        " assistant's the answer where `answer` names no column",
    )
    extract: str = Field("", description=EXTRACT)
    instruction: str = Field(INSTRUCTION, description="with `question` or `messages`: what stands before the question")

    @model_validator(mode="after")
    def _place_is_named(self) -> "Source":
        if self.kind == "file" and not self.path:
            raise ValueError('source.path is missing: kind = "file" needs the path of a JSONL, CSV or Parquet file')
        if self.kind == "hub" and not self.dataset:
            raise ValueError('source.dataset is missing: kind = "hub" needs a data set id such as "nvidia/..."')
        if self.config and self.kind != "hub":
            raise ValueError('source.config is a part of a hub data set; set source.kind = "hub", or drop it')
        return self

    @model_validator(mode="after")
    def _columns_are_whole(self) -> "Source":
        if self.question and not self.answer:
            raise ValueError("source.answer is missing: source.question needs the column of the reference answer too")
        if self.question and self.question == self.answer:
            raise ValueError(
                f"source.question and source.answer are both {self.answer!r}; name a column of its own for each"
            )
        if (self.answer or self.extract) and not (self.question or self.messages):
            key = "answer" if self.answer else "extract"
            raise ValueError(f"source.{key} is set without source.question: name the column of the question too")
        if self.kind == "demo" and (self.question or self.messages):
            raise ValueError('source.question and source.messages are for kind = "file" or "hub"; drop them')
        if wrong := what_is_wrong(self.extract):
            raise ValueError(f"source.extract = {self.extract!r} {wrong}")
        return self

    @property
    def has_columns(self) -> bool:
        """Whether the recipe says which columns hold question and answer."""
        return bool(self.question or self.messages)


class BaseModelRef(Section):
    """The model that is fine-tuned."""

    name: str = Field("demo", description='"demo", a hub id, or the path of a checkpoint folder')
    revision: str = Field("main", description="hub ids only: branch, tag or commit; resolved to a commit before use")


class Filters(Section):
    """Which rows are unfit: bounds, and the kinds of question that one final answer cannot settle."""

    min_question_chars: Natural = 10
    max_question_chars: Positive = 2000
    max_answer_chars: Positive = 200
    multi_part: bool = Field(True, description="drop questions of several parts: one box cannot hold their answers")
    proof: bool = Field(True, description="drop questions for a proof: the answer shows nothing of it")
    yes_no: bool = Field(True, description="drop questions that a coin answers")
    multiple_choice: bool = Field(True, description="drop questions that offer their answers")
    reference: bool = Field(True, description="drop questions that refer to a link, a picture or a table elsewhere")
    non_english: bool = Field(True, description="drop questions in other languages")
    conflicting_answers: bool = Field(True, description="drop all rows of a question that comes with several answers")
    unverifiable_answer: bool = Field(
        False, description="drop answers that math-verify cannot parse; minutes for 100,000 new answers, then cached"
    )


class NearDuplicates(Section):
    """Questions that differ in a few words: MinHash over word shingles, then their exact Jaccard similarity."""

    enabled: bool = True
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(0.8, description="Jaccard similarity of the shingle sets")
    shingle_words: Positive = 5
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    keep: Literal["one", "all"] = Field("one", description="of each group; never in both parts, either way")


class Benchmarks(Section):
    """The benchmark sets that no training row may come from."""

    sets: tuple[str, ...] = Field((), description='files, or "org/name[/config][@revision][:split]"; then "#column"')


class Decontamination(Section):
    """Rows dropped for asking what a benchmark asks, or one of our own evaluation rows."""

    enabled: bool = True
    overlap: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="share of a question, weighted by how rare its words are, that makes a row the same question"
    )
    own_evaluation: bool = Field(True, description="training rows are held against our own evaluation rows too")


class Split(Section):
    """How many of the kept rows are used, and how they are divided."""

    rows: Natural = Field(0, description="rows used for training and evaluation together; 0 means all that are kept")
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    stratify: bool = Field(True, description="the same shares of answer kinds in both parts")
    seed: Natural = 3407
    max_tokens: Positive = Field(2048, description="longer prompt + completion pairs are dropped")


class Quantization(Section):
    """How the frozen base weights are held."""

    bits: Literal[4] = 4
    type: Literal["nf4", "fp4"] = "nf4"
    double: bool = Field(True, description="quantize the quantization constants too (QLoRA, section 3)")
    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"


class Lora(Section):
    """The adapter's shape."""

    rank: Positive = 16
    alpha: Positive = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[Literal[TARGETS], ...] = TARGETS  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _some_target(self) -> "Lora":
        if not self.targets:
            raise ValueError("lora.targets is empty: name at least one of " + ", ".join(TARGETS))
        return self


class Training(Section):
    """The optimisation."""

    backend: Literal["auto", "peft", "grouped", "unsloth"] = Field(
        "auto", description="what holds and computes the model; auto: the fastest that this machine and model allow"
    )
    on: Literal["answers", "solutions"] = Field(
        "answers", description="the split's bare answers, or the model's own solutions that were right: [solutions]"
    )
    method: Literal["supervised", "grpo"] = Field(
        "supervised", description="the likelihood of given rows, or the reward of sampled answers: [grpo]"
    )
    samples_per_step: Positive = Field(8, description="samples of an optimizer step, however they are computed")
    max_steps: Natural = Field(0, description="full optimizer steps; 0 means `max_samples` or `epochs`")
    max_samples: Natural = Field(0, description="samples seen, repeats included; 0 means `max_steps` or `epochs`")
    epochs: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_fraction: Share = 0.05
    optimizer: Literal["adamw_8bit", "adamw_torch"] = "adamw_8bit"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    completion_only_loss: bool = True
    fp8: bool = Field(
        False, description="products of large passes in 8-bit floats: faster on Hopper GPUs, and less exact"
    )
    eval_every: Positive = Field(100, description="steps between two validation losses")
    log_every: Positive = Field(10, description="steps between two training losses")
    keep: Literal["best", "last"] = Field("best", description="the adapter of the best validation loss, or the last")
    seed: Natural = 3407

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if self.max_steps and self.max_samples:
            raise ValueError("training.max_steps and training.max_samples are both set; set one of them to 0")
        return self

    @model_validator(mode="after")
    def _fp8_is_of_one_backend(self) -> "Training":
        if self.fp8 and (self.backend != "grouped" or self.method != "supervised"):
            raise ValueError(
                'training.fp8 = true is for training.backend = "grouped" and training.method = "supervised"; '
                "set these, or set it to false"
            )
        return self


class Solutions(Section):
    """Worked solutions of the training problems: sampled from the model, graded, kept where they are right."""

    rows: Natural = Field(0, description="training problems to solve; 0 means all")
    samples: Positive = Field(8, description="attempts at each problem in each round")
    keep: Positive = Field(4, description="distinct right solutions of a problem that are kept at most")
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 1024
    seed: Natural = 3407
    rounds: Positive = Field(1, description="above 1: sampled again with the adapter that the round before trained")
    min_solved: Share = Field(0.05, description="share of the problems that must have a kept solution")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="share of the solved problems whose solutions only measure the training"
    )
    grading_timeout_s: Annotated[float, Field(gt=0)] = 5.0

    @model_validator(mode="after")
    def _enough_samples(self) -> "Solutions":
        if self.keep > self.samples * self.rounds:
            raise ValueError(
                f"solutions.keep = {self.keep} is more than a problem's {self.samples * self.rounds} attempts "
                "(solutions.samples x solutions.rounds); lower it, or raise one of these"
            )
        return self


class Grpo(Section):
    """Reinforcement learning from graded answers: group relative policy optimisation (training/grpo/README.md)."""

    group: Annotated[int, Field(ge=2)] = Field(8, description="sampled answers to each prompt of a step")
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 1024
    seed: Natural = 3407
    format_reward: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="for an answer in a box that ended, right or wrong; 1 more if it is right"
    )
    normalization: Literal["dr_grpo", "grpo"] = Field(
        "dr_grpo", description="grpo: divided by the group's deviation and by each answer's length, with their biases"
    )
    filter_groups: bool = Field(True, description="draw further prompts for groups whose answers all got one reward")
    max_draws: Positive = Field(3, description="times that a step draws prompts, the first included")
    kl_to_base: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the KL divergence from the base")
    updates_per_batch: Positive = Field(1, description="optimizer steps from the same sampled answers")
    clip_low: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="updates_per_batch above 1: PPO's clip")
    clip_high: Annotated[float, Field(gt=0)] = Field(0.28, description="as clip_low, upwards: DAPO's clip-higher")
    max_importance: Annotated[float, Field(ge=1)] = Field(
        2.0, description="most that a token counts for being likelier to the trainer than to the sampler"
    )
    replay_routing: bool = Field(True, description="train by the experts that the sampler chose, where it can tell")
    max_mismatch_kl: Annotated[float, Field(gt=0)] = Field(
        0.1, description="KL between sampler and trainer that stops the run; above 0.015 something is wrong"
    )
    max_fall: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="share of the best solved share so far whose loss stops the run"
    )
    patience: Positive = Field(10, description="steps in a row before the run is stopped: diverged, or nothing solved")
    eval_problems: Positive = Field(64, description="training problems set aside to measure the run, never trained on")
    grading_timeout_s: Annotated[float, Field(gt=0)] = 5.0


class Evaluation(Section):
    """How both models are measured on the held-out rows."""

    rows: Natural = Field(0, description="held-out rows to answer; 0 means all")
    max_new_tokens: Positive = 512
    grading_timeout_s: Annotated[float, Field(gt=0)] = 5.0


class Gate(Section):
    """What the adapter must show before it becomes the champion.

    Whatever is set here, an adapter that is no better than the base model does not: `promote` makes it one by hand.
    """

    min_gain: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="accuracy above the base model's, at least so much; at 0 any gain, and no gain of 0"
    )
    max_p_value: Share = Field(0.05, description="of the paired comparison with the base model")

    @field_validator("min_gain", mode="before")
    @classmethod
    def _no_loss(cls, value: object) -> object:
        if isinstance(value, int | float) and value < 0:
            raise ValueError(
                f"gate.min_gain = {value} allows a loss, and the gate lets no adapter pass that is not better than the "
                "base model; set it to 0 or more, and to make such an adapter the champion use "
                '"ernie promote"'
            )
        return value


NOT_IN_A_NAME = re.compile(r"""[/:.%"']""")
"""What MLflow takes in no name of a logged model, which the registered one's is too."""


class Registry(Section):
    """Where in MLflow the adapter goes."""

    model_name: str = Field("ernie-math", description="where a recipe has none, and its rows are others: by its rows")
    experiment: str = "ernie_pipeline"

    @field_validator("model_name")
    @classmethod
    def _mlflow_takes_it(cls, name: str) -> str:
        if not name.strip() or NOT_IN_A_NAME.search(name):  # MLflow tells it when all is built
            raise ValueError(f"registry.model_name = {name!r} is none that MLflow takes; leave out / : . % and quotes")
        return name


HUB_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git$))[\w](?:[\w.-]*[\w])?", re.ASCII)
"""A name of a user, an organization or a repository of the Hugging Face hub; see its `validate_repo_id`."""
HUB_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class Publish(Section):
    """Where on the Hugging Face hub the champion goes; without a repository there is no such asset."""

    repo: str = Field("", description='"NAMESPACE/NAME"; made where it is missing')
    private: bool = Field(True, description="for yourself or your organization alone; what is there already must agree")
    forms: tuple[Literal["peft", "unsloth", "merged", "gguf"], ...] = Field(
        ("peft",), description="as `export` has them: the first at the top of the repository, each further in a folder"
    )
    license: str = Field("apache-2.0", description="the hub's identifier: https://hf.co/docs/hub/repositories-licenses")
    tag: str = Field("", description="for the commit; it is never moved, so a later publication wants another")

    @model_validator(mode="after")
    def _can_be_published(self) -> "Publish":
        if not self.repo:
            if any(getattr(self, name) != field.default for name, field in type(self).model_fields.items()):
                raise ValueError('publish.repo is missing: name the hub\'s repository, such as "me/ernie-math"')
            return self
        parts = self.repo.split("/")
        if len(parts) != 2 or not all(HUB_NAME.fullmatch(part) for part in parts) or len(self.repo) > 96:
            raise ValueError(
                f'publish.repo = {self.repo!r} is no name of a repository; write "NAMESPACE/NAME", of letters, digits, '
                '"-", "_" and ".", 96 at most'
            )
        if not self.forms or len({*self.forms}) < len(self.forms):
            raise ValueError("publish.forms must name at least one form, and each once: peft, unsloth, merged, gguf")
        if not HUB_LICENSE.fullmatch(self.license):
            raise ValueError(f"publish.license = {self.license!r} is no identifier of a licence, such as apache-2.0")
        if self.tag and not HUB_NAME.fullmatch(self.tag):
            raise ValueError(f"publish.tag = {self.tag!r} is no name of a tag, such as v1.0")
        return self


class Recipe(Section):
    """Everything that changes what is built."""

    source: Source = Source()
    base_model: BaseModelRef = BaseModelRef()
    filters: Filters = Filters()
    near_duplicates: NearDuplicates = NearDuplicates()
    benchmarks: Benchmarks = Benchmarks()
    decontamination: Decontamination = Decontamination()
    split: Split = Split()
    quantization: Quantization = Quantization()
    lora: Lora = Lora()
    solutions: Solutions = Solutions()
    training: Training = Training()
    grpo: Grpo = Grpo()
    evaluation: Evaluation = Evaluation()
    suites: dict[str, Suite] = Field(default_factory=dict, description="[suites.NAME] each; none: none is built")
    gate: Gate = Gate()
    registry: Registry = Registry()
    publish: Publish = Publish()
    execution: ExecutionOverrides = ExecutionOverrides()
    """How it is computed: in no fingerprint."""

    @model_validator(mode="after")
    def _grpo_can_be(self) -> "Recipe":
        if self.training.method == "grpo":
            check_grpo(self.training, self.grpo, self.lora)
        return self

    @model_validator(mode="after")
    def _suites_have_names(self) -> "Recipe":
        check_names([*self.suites])
        return self


def check_grpo(training: Training, grpo: Grpo, lora: Lora) -> None:
    """Raise `ValueError` for what cannot be together with training.method = "grpo"."""
    samples, updates = training.samples_per_step, grpo.updates_per_batch
    if samples % grpo.group:
        raise ValueError(
            f"training.samples_per_step = {samples} is no multiple of grpo.group = {grpo.group}: a step takes whole "
            f"groups of answers; make it {max(1, round(samples / grpo.group)) * grpo.group}"
        )
    if training.eval_every % updates:
        raise ValueError(
            f"training.eval_every = {training.eval_every} is no multiple of grpo.updates_per_batch = {updates}: the "
            f"run is measured between two batches of answers; make it {-(-training.eval_every // updates) * updates}"
        )
    if lora.dropout:
        raise ValueError(
            f'lora.dropout = {lora.dropout:g} does not go with training.method = "grpo": answers are sampled without '
            "it, so that the two would disagree on their probability; set it to 0"
        )

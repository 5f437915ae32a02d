"""Merged and captured generation on a CUDA device: the same answers as transformers' `generate`, up to ties."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import pytest
import torch

from ernie_pipeline.demo import BASE
from ernie_pipeline.evaluation.evaluate import evaluate
from ernie_pipeline.evaluation.job import EvaluationJob
from ernie_pipeline.models import transformers_model
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, token_ids
from ernie_pipeline.models.generation import decode as decode_module
from ernie_pipeline.models.generation import memory_plan
from ernie_pipeline.models.generation.again import Again
from ernie_pipeline.models.generation.decode import decode
from ernie_pipeline.models.generation.generate import generate_tokens
from ernie_pipeline.models.generation.memory_plan import row_bytes
from ernie_pipeline.models.generation.merged import BFLOAT16_CAPABILITY, Generator, fast_generator, merge
from ernie_pipeline.models.generation.sampler import Answers, Sampler
from ernie_pipeline.models.generation.schedule import DecodeSettings, Work
from ernie_pipeline.models.memory import free_memory
from ernie_pipeline.models.peft import backend as peft_backend
from ernie_pipeline.models.peft.experts import unfuse_experts
from ernie_pipeline.recipe.sections import Lora, Quantization
from ernie_pipeline_tests.gpu.answers import NEW_TOKENS, assert_same_but_for_ties, transformers_answers
from ernie_pipeline_tests.gpu.conftest import sample_prompts
from ernie_pipeline_tests.models.conftest import logits_of

MakeEvaluation = Callable[..., EvaluationJob]

CAPTURES = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= BFLOAT16_CAPABILITY
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CAPTURES, reason="needs a CUDA device of compute capability 8 or more, and there is none"),
]


@pytest.fixture(autouse=True)
def usual_kernels() -> None:
    """A CPU training in the same session asks for deterministic algorithms, which not all CUDA kernels are."""
    torch.use_deterministic_algorithms(False)


def adapted_model() -> Any:
    base = peft_backend.load_base(str(BASE), None, Quantization().model_dump(mode="json"), "cuda")
    model = peft_backend.with_adapter(base, Lora(rank=4, alpha=8), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


@pytest.fixture(scope="module")
def adapted() -> Any:
    return adapted_model()


@pytest.fixture(scope="module")
def generator(adapted: Any, prompts: list[str]) -> Generator:
    return fast_generator(adapted, rows=len(prompts), length=512)


@pytest.fixture(scope="module")
def plain(generator: Generator, prompts: list[str]) -> list[list[int]]:
    return transformers_answers(generator.model, prompts)


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"settings": DecodeSettings(check_every=2, length_step=32, least_rows=2)},
        {"rows": 17, "settings": DecodeSettings(prefill_tokens=500)},
    ],
    ids=["usual", "halved", "in batches"],
)
def test_the_answers_are_those_of_transformers_generate(
    generator: Generator, prompts: list[str], plain: list[list[int]], capture: bool, changes: dict[str, Any]
) -> None:
    ids = token_ids(load_tokenizer(str(BASE)), prompts)
    usual: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "end_tokens": [2], "rows": 400, "capture": capture}
    found = decode(generator.model, ids, **usual | changes).tokens
    assert len({len(answer) for answer in found}) > 5
    assert_same_but_for_ties(generator.model, ids, found, plain)


@pytest.mark.parametrize("sampler", [Sampler(1.0), Sampler(0.8, 0.9)])
def test_sampled_answers_follow_from_their_seeds_captured_or_not_and_in_any_batch(
    generator: Generator, prompts: list[str], sampler: Sampler
) -> None:
    ids = token_ids(load_tokenizer(str(BASE)), prompts)
    seeds = list(range(len(ids)))
    usual: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "end_tokens": [2], "sampler": sampler}
    eager = decode(generator.model, ids, **usual, seeds=seeds, rows=400, capture=False)
    captured = decode(generator.model, ids, **usual, seeds=seeds, rows=400, capture=True)
    assert captured.tokens == eager.tokens
    others = decode(generator.model, ids, **usual, seeds=[seed + 1000 for seed in seeds], rows=400, capture=True)
    same = sum(map(list.__eq__, others.tokens, captured.tokens))
    assert same < 0.75 * len(ids)  # of a short answer that is nearly sure, other numbers draw the same
    few = decode(generator.model, ids, **usual, seeds=seeds, rows=17, capture=True)
    # another batch rounds otherwise, which a number near the edge between two tokens shows
    assert sum(map(list.__eq__, few.tokens, captured.tokens)) > 0.9 * len(ids)
    probabilities = torch.tensor([value for row in captured.logprobs for value in row]).exp()
    assert 0.2 < probabilities.mean() < 1


def test_captured_steps_with_refills_give_what_eager_ones_give(generator: Generator, prompts: list[str]) -> None:
    """Samples of equal prompts, each with a budget of its own, through few slots that others take after them."""
    ids = [prompt for prompt in token_ids(load_tokenizer(str(BASE)), prompts) for _ in range(3)]
    rng = random.Random(0)
    budgets = [min(150, round(20 * rng.lognormvariate(0, 0.8)) + 1) for _ in ids]
    usual: dict[str, Any] = {
        "max_new_tokens": 150,
        "end_tokens": [],
        "sampler": Sampler(1.0, 0.9),
        "seeds": [*range(len(ids))],
        "budgets": budgets,
        "rows": 24,
    }
    heard: list[int] = []
    work = Work()
    captured = decode(
        generator.model, ids, **usual, capture=True, work=work, on_answer=lambda index, *_: heard.append(index)
    )
    assert [*map(len, captured.tokens)] == [*map(len, captured.logprobs)] == budgets
    assert sorted(heard) == [*range(len(ids))]
    assert work.refills > len(ids) / 24
    assert sum(budgets) / work.row_steps > 0.7  # with looks every 8 steps for 28 tokens, and an end
    eager = decode(generator.model, ids, **usual, capture=False)
    assert captured.tokens == eager.tokens
    # each alone in a slot rounds otherwise, which a number near the edge between two tokens shows
    at_once = decode(generator.model, ids, **usual | {"rows": len(ids)}, capture=True)
    assert sum(map(list.__eq__, at_once.tokens, captured.tokens)) > 0.8 * len(ids)
    model = generator.model
    for index in range(0, len(ids), 17):
        with torch.no_grad():
            whole = torch.tensor([ids[index] + captured.tokens[index]], device="cuda")
            logits = model(input_ids=whole, use_cache=False).logits[0, len(ids[index]) - 1 : -1].float()
        wanted = logits.log_softmax(-1).gather(1, whole[0, len(ids[index]) :, None])[:, 0].tolist()
        differences = [abs(a - b) for a, b in zip(wanted, captured.logprobs[index], strict=True)]
        assert sum(differences) / len(differences) < 0.1


def test_generate_takes_that_way_and_its_model_gives_the_4_bit_model_s_logits(
    adapted: Any, generator: Generator, prompts: list[str], plain: list[list[int]]
) -> None:
    assert generator.kind == "merged bfloat16, CUDA graphs"
    heard: list[tuple[int, int]] = []
    ids = token_ids(load_tokenizer(str(BASE)), prompts)
    found = generate_tokens(
        generator.model,
        ids,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
        end_tokens=[2],
        rows=2,
        progress=lambda done, total: heard.append((done, total)),
    ).tokens
    assert_same_but_for_ties(generator.model, ids, found, plain)
    assert heard[-1] == (len(prompts), len(prompts))
    assert len(heard) < len(prompts) / 2, "not in batches of 2"
    tokens = torch.arange(5, 45)
    quantized, merged = (logits_of(model, tokens) for model in (adapted, generator.model))
    # of all together: where two experts tie in the router, rounding decides, and single logits may differ by 1.4
    assert (quantized - merged).norm() < 0.03 * quantized.norm()


@pytest.fixture
def limited() -> Iterator[Callable[[float], None]]:
    yield torch.cuda.set_per_process_memory_fraction
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_without_memory_or_in_fp32_the_4_bit_model_stays(adapted: Any, limited: Callable[[float], None]) -> None:
    in_fp32 = Quantization(compute_dtype="float32").model_dump(mode="json")
    base = peft_backend.load_base(str(BASE), None, in_fp32, "cuda")
    assert fast_generator(base, rows=4, length=64) == (base, "4-bit")
    limited(2**30 / torch.cuda.get_device_properties(0).total_memory)  # less than the work beside the weights
    assert fast_generator(adapted, rows=4, length=64) == (adapted, "4-bit")


def _memory_for_the_cache_only() -> tuple[list[int], list[int]]:
    """The batches that were tried, and which prompts were answered, in a process that held nothing before.

    What tests before it left in torch's pools would be handed back at the first want, and be room for a batch.
    """
    memory_plan.WORKING_BYTES = 0  # as if nothing but the cache took memory
    ids = token_ids(load_tokenizer(str(BASE)), sample_prompts())
    model = fast_generator(adapted_model(), rows=len(ids), length=512).model
    cache = len(ids) * row_bytes(model.config, max(map(len, ids)) + NEW_TOKENS, torch.bfloat16)
    # what cuBLAS takes for each stream is kept for good, and is no part of one decoding's memory
    decode(model, ids[:1], max_new_tokens=3, end_tokens=[], rows=1, capture=True)
    free_memory()
    limit = torch.cuda.memory_reserved() + cache + 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    tried: list[int] = []
    answered: list[int] = []

    def heard(*args: Any, **given: Any) -> Answers:
        tried.append(given["rows"])
        return decode(*args, **given)

    decode_module.decode = heard
    asked: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "pad_token_id": 0, "end_tokens": [2], "rows": 2}
    found = generate_tokens(model, ids, **asked, on_answer=lambda index, tokens: answered.append(index))
    torch.cuda.set_per_process_memory_fraction(1.0)
    plain = decode(model, ids, max_new_tokens=NEW_TOKENS, end_tokens=[2], rows=len(ids), capture=False)
    assert_same_but_for_ties(model, ids, found.tokens, plain.tokens)
    return tried, answered


def test_out_of_memory_it_begins_anew_with_fewer_at_once() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        tried, answered = fresh.submit(_memory_for_the_cache_only).result()
    assert sorted(answered) == [*range(80)], "each once"
    assert tried[0] == 80 > 60 >= tried[1]


def test_an_evaluation_says_that_it_replayed_cuda_graphs(
    make_evaluation: MakeEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_model, "MERGED_FROM", 1)
    job = make_evaluation(quantization=Quantization().model_dump(mode="json"))
    evaluate(job, lambda line, values: None)
    run = json.loads((job.out / "reports" / "run.json").read_text())
    assert run["generation"] == "merged bfloat16, CUDA graphs"
    assert run["generated_tokens"] > 0


def test_layers_of_the_real_model_s_size_are_captured() -> None:
    """ERNIE-4.5-21B-A3B's widths and experts in 2 of its 28 layers (dense, and routed with shared), random weights."""
    from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(num_hidden_layers=2)).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name.endswith("mlp.gate.weight"):
            parameter.data = torch.nn.init.normal_(parameter.data.float(), std=0.02)
    unfuse_experts(model)
    merged = merge(model)
    ids = torch.randint(3, 100_000, (20, 30), generator=torch.Generator().manual_seed(0)).tolist()
    eager, captured = (
        decode(
            merged,
            ids,
            max_new_tokens=20,
            end_tokens=[],
            rows=20,
            capture=capture,
            settings=DecodeSettings(length_step=32),
        ).tokens
        for capture in (False, True)
    )
    assert_same_but_for_ties(merged, ids, captured, eager)


def test_kept_captured_steps_follow_the_weights_that_are_written_again(adapted: Any, prompts: list[str]) -> None:
    """As GRPO samples: the adapter learns in between, and the graphs of the first call are replayed in the others."""
    ids = token_ids(load_tokenizer(str(BASE)), prompts)[:64]
    usual: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "end_tokens": [2], "rows": 64}
    keeping, graphs = Again(64), []
    for factor in (1.0, 4.0, 0.25):
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(factor)
        made = keeping.generator_of(adapted, partial(fast_generator, adapted, 64, 512))
        found = generate_tokens(made.model, ids, pad_token_id=0, decoder=keeping.decoder_kept, **usual).tokens
        fresh = merge(adapted)
        assert_same_but_for_ties(fresh, ids, found, decode(fresh, ids, capture=False, **usual).tokens)
        assert keeping.decoder.steps is not None
        graphs.append({shape: id(graph) for shape, graph in keeping.decoder.steps.graphs.items() if graph})
    assert graphs[0].items() <= graphs[1].items() <= graphs[2].items()
    assert graphs[0]

"""What every backend holds to, see `models/backend.py`: one and the same tests over all of them.

On a CPU `peft`, and `grouped` by the references of its kernels, on the demo model's first layers; on CUDA all three, as
they are used, on the whole of it.
"""

import json
import random
import re
from pathlib import Path

import pytest
import torch

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.audit import totals
from ernie_pipeline.models.backend import Generation, LoadedModel, Sampling
from ernie_pipeline.models.checkpoint.tokenizer import token_ids
from ernie_pipeline.models.documents import Document, document
from ernie_pipeline.models.routing import UNKNOWN, Replay, recording, routers
from ernie_pipeline_tests.first_layers import write_first_layers
from ernie_pipeline_tests.models.contract import (
    ADAPTER_PARAMETERS,
    DEMO,
    DOCUMENTS,
    END,
    IDS,
    LAYERS_ON_A_CPU,
    LENGTHS,
    LORA,
    ONES,
    SUBJECTS,
    WEIGHTS,
    Subject,
    by_hand,
    documents,
    execution,
    gradient,
    greedy,
    grouped_on_a_cpu,
    losses_by_hand,
    size_by_hand,
    step,
    trained,
    values_of,
    within,
)


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    name, device = request.param
    folder: Path = tmp_path_factory.mktemp(f"{name}_{device}")
    torch.use_deterministic_algorithms(False)
    base = DEMO if device == "cuda" else write_first_layers(folder / "base", LAYERS_ON_A_CPU)
    if (name, device) == ("grouped", "cpu"):
        return Subject(name, device, folder, base, lambda spec: grouped_on_a_cpu(folder, spec))
    return Subject(name, device, folder, base, lambda spec: backend_named(name).load(spec, device))


@pytest.fixture(scope="module")
def adapted(subject: Subject) -> LoadedModel:
    """With an adapter that changes the logits, for tests that leave it as it is."""
    return subject.adapted()


SOME_WEIGHTS = pytest.mark.parametrize("weights", [None, ONES, WEIGHTS], ids=["no", "ones", "any"])


# Loaded


def test_it_is_what_was_asked_for(subject: Subject) -> None:
    model = subject.base
    assert (model.spec, model.device) == (subject.spec, subject.device)
    assert isinstance(model.module, torch.nn.Module)
    assert model.trainable() == {}
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_logits_are_fp32_on_the_cpu_and_see_only_what_comes_before(subject: Subject) -> None:
    logits = subject.base.logits(IDS)
    assert (logits.shape, logits.dtype, logits.device.type) == ((len(IDS), 768), torch.float32, "cpu")
    assert not logits.requires_grad
    assert torch.isfinite(logits).all()
    half = subject.base.logits(IDS[:20])
    assert (half - logits[:20]).norm() <= subject.loose * half.norm()
    assert not torch.equal(logits[0], logits[1])


def test_the_audit_finds_all_in_4_bits_and_the_adapter_where_it_should_be(subject: Subject) -> None:
    bare, fresh = subject.base, subject.fresh()
    for model, adapter in ((bare, 0), (fresh, ADAPTER_PARAMETERS[subject.name, subject.device])):
        sums = totals(model.audit(training=model is fresh))
        assert sums["four_bit_parameters"] == sums["base_parameters"] > 2_000_000
        assert sums["lora_parameters"] == sums["trainable_parameters"] == adapter
        assert sum(parameter.numel() for parameter in model.trainable().values()) == adapter


def test_an_adapter_follows_from_its_seed_and_changes_nothing_at_first(subject: Subject) -> None:
    torch.manual_seed(99)
    first, again, other = subject.fresh(1), subject.fresh(1), subject.fresh(2)
    assert first.spec.lora == LORA
    assert values_of(first).keys() == values_of(again).keys()
    assert all(torch.equal(value, values_of(again)[name]) for name, value in values_of(first).items())
    assert any(not torch.equal(value, values_of(other)[name]) for name, value in values_of(first).items())
    bare = subject.base.logits(IDS)
    assert (first.logits(IDS) - bare).norm() <= subject.loose * bare.norm()


def test_without_its_adapter_it_is_the_base(subject: Subject, adapted: LoadedModel) -> None:
    bare, changed = subject.base.logits(IDS), adapted.logits(IDS)
    least = 0.05 if subject.on_gpu else 0.02
    assert (changed - bare).norm() > least * bare.norm(), "an adapter that changes nothing shows nothing"
    with adapted.without_adapter():
        found = adapted.logits(IDS)
    assert (found - bare).norm() <= subject.loose * bare.norm()
    assert torch.equal(adapted.logits(IDS), changed)
    with subject.base.without_adapter():
        assert torch.equal(subject.base.logits(IDS), bare)


def test_a_saved_adapter_is_loaded_frozen_with_equal_logits(
    subject: Subject, adapted: LoadedModel, tmp_path: Path
) -> None:
    for name in ("saved", "again"):
        adapted.save_adapter(tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "saved").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    assert all((tmp_path / "saved" / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    loaded = subject.load(tmp_path / "saved")
    assert torch.equal(loaded.logits(IDS), adapted.logits(IDS))
    assert loaded.trainable() == {}
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert totals(loaded.audit(training=False))["lora_parameters"] == ADAPTER_PARAMETERS[subject.name, subject.device]


def test_its_parameters_are_the_tensors_themselves_in_fp32_and_in_one_order(adapted: LoadedModel) -> None:
    found = adapted.trainable()
    assert [*found] == [*adapted.trainable()]
    assert all(found[name] is parameter for name, parameter in adapted.trainable().items())
    assert {parameter.dtype for parameter in found.values()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in found.values())
    assert all("lora_" in name for name in found)


# The loss


@SOME_WEIGHTS
def test_the_loss_is_the_sum_over_the_logits_in_any_order(
    subject: Subject, adapted: LoadedModel, weights: list[torch.Tensor] | None
) -> None:
    wanted, size = by_hand(adapted, DOCUMENTS, weights), size_by_hand(adapted, DOCUMENTS, weights)
    for order in (range(len(DOCUMENTS)), [3, 1, 5, 0, 4, 2]):
        own = None if weights is None else [weights[i] for i in order]
        found = adapted.loss_sum([DOCUMENTS[i] for i in order], own)
        assert isinstance(found, float)
        assert abs(found - wanted) <= subject.loose * size


@SOME_WEIGHTS
def test_the_loss_of_several_is_the_sum_of_the_loss_of_each(
    subject: Subject, adapted: LoadedModel, weights: list[torch.Tensor] | None
) -> None:
    def part(*places: int) -> float:
        own = None if weights is None else [weights[i] for i in places]
        return adapted.loss_sum([DOCUMENTS[i] for i in places], own)

    size = size_by_hand(adapted, DOCUMENTS, weights)
    together = part(*range(len(DOCUMENTS)))
    for split in ([(0,), (1,), (2,), (3,), (4,), (5,)], [(0, 5), (1, 2, 3, 4)]):
        assert abs(sum(part(*places) for places in split) - together) <= subject.loose * size


def test_more_documents_than_a_batch_holds_have_the_loss_of_all(subject: Subject, adapted: LoadedModel) -> None:
    """300 times 40 tokens are more than any backend computes at once."""
    [one] = documents(40)
    assert adapted.loss_sum([one] * 300) == pytest.approx(300 * by_hand(adapted, [one]), rel=subject.loose)


def test_weights_count_and_tokens_without_a_label_do_not(subject: Subject, adapted: LoadedModel) -> None:
    """Weights of 0 everywhere, of -1, and of a prompt's tokens only."""
    size = size_by_hand(adapted, DOCUMENTS, None)
    assert adapted.loss_sum(DOCUMENTS, [0 * each for each in ONES]) == 0
    assert adapted.loss_sum(DOCUMENTS, [-each for each in ONES]) == subject.near(-adapted.loss_sum(DOCUMENTS))
    prompts = [torch.where(torch.arange(n) < 4, 1.0, 0.0) for n in LENGTHS]
    assert adapted.loss_sum(DOCUMENTS, prompts) == 0
    assert abs(adapted.loss_sum(DOCUMENTS, ONES) - adapted.loss_sum(DOCUMENTS)) <= subject.loose * size


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_tokens_log_probabilities_are_those_of_the_logits_in_any_order(
    subject: Subject, adapted: LoadedModel, temperature: float
) -> None:
    wanted = losses_by_hand(adapted, DOCUMENTS, temperature)
    for order in (range(len(DOCUMENTS)), [3, 1, 5, 0, 4, 2]):
        found = adapted.token_logprobs([DOCUMENTS[i] for i in order], temperature)
        assert [len(each) for each in found] == [LENGTHS[i] for i in order]
        assert {(each.dtype, each.device.type, each.requires_grad) for each in found} == {(torch.float32, "cpu", False)}
        assert all((each[:4] == 0).all() for each in found), "a prompt's tokens are not counted"
        for i, each in zip(order, found, strict=True):
            assert (each + wanted[i]).norm() <= 2 * subject.loose * wanted[i].norm()
    assert adapted.token_logprobs([]) == []


def test_a_sampler_tells_which_experts_it_chose_and_the_learner_chooses_the_same(
    subject: Subject, adapted: LoadedModel
) -> None:
    """Answers of unlike length, so that slots are filled anew and moved; in fp32 the two agree."""
    prompts = [[*prompt, number] for number in range(20, 30) for prompt in PROMPTS]
    asked = Sampling(7, temperature=1.5, with_routing=True)
    made = adapted.generate(prompts, asked, rows=6, seeds=range(40))
    if made.routing is None:
        pytest.skip("this backend's sampler does not tell")
    own = [document([*prompt, *tokens], len(prompt)) for prompt, tokens in zip(prompts, made.tokens, strict=True)]
    assert [len(each) for each in made.routing] == [len(each.ids) for each in own]
    for prompt, each in zip(prompts, made.routing, strict=True):
        assert (each[: len(prompt) - 1] == UNKNOWN).all()
        assert (each[-1] == UNKNOWN).all()
        assert (each[len(prompt) - 1 : -1] >= 0).all()
    replay = Replay(made.routing)
    adapted.token_logprobs(own, 1.5, replay)
    assert replay.decisions == sum(map(len, made.tokens)) * made.routing[0].shape[1]
    assert replay.elsewhere <= (0.2 if subject.on_gpu else 0.002) * replay.decisions
    assert adapted.generate(prompts[:2], Sampling(2), rows=2).routing is None


def test_a_sampled_token_s_log_probability_is_the_learner_s_own(subject: Subject, adapted: LoadedModel) -> None:
    """At the temperature it was drawn at."""
    made = adapted.generate(PROMPTS, Sampling(6, temperature=1.5), rows=4, seeds=range(4))
    own = [document([*prompt, *tokens], len(prompt)) for prompt, tokens in zip(PROMPTS, made.tokens, strict=True)]
    for prompt, told, found in zip(PROMPTS, made.logprobs, adapted.token_logprobs(own, 1.5), strict=True):
        assert found[len(prompt) :].tolist() == pytest.approx(told, abs=max(1e-3, 4 * subject.loose))


def choices(model: LoadedModel, own: list[Document]) -> list[torch.Tensor]:
    """The experts that a base chooses for each document's tokens [tokens, layers, k]."""
    found = []
    for each in own:
        with recording(model.module) as chosen:
            model.logits(each.ids.tolist())
        if not chosen:
            pytest.skip("this backend's forward pass hears no hooks on routers")
        found.append(torch.stack(chosen, 1).cpu())
    return found


def test_experts_that_a_sampler_chose_are_replayed(subject: Subject, adapted: LoadedModel) -> None:
    """The model's own choices change nothing; others change what it computes, and are counted."""
    if not routers(adapted.module):
        pytest.skip("this backend has no routers that can be told")
    own, plain = choices(adapted, DOCUMENTS), adapted.token_logprobs(DOCUMENTS)
    replay = Replay([chosen.flip(-1) for chosen in own])
    for one, other in zip(adapted.token_logprobs(DOCUMENTS, replay=replay), plain, strict=True):
        assert (one - other).norm() <= 2 * subject.loose * other.norm()
    assert replay.decisions == sum(LENGTHS) * own[0].shape[1]
    assert replay.elsewhere <= (0.05 if subject.on_gpu else 0) * replay.decisions

    others = [(chosen + 1) % 8 for chosen in own]
    others[0][5:] = UNKNOWN
    watched, forced = Replay(others, forced=False), Replay(others)
    for one, other in zip(adapted.token_logprobs(DOCUMENTS, replay=watched), plain, strict=True):
        assert (one - other).norm() <= 2 * subject.loose * other.norm()
    found = adapted.token_logprobs(DOCUMENTS, replay=forced)
    assert all((one - other).norm() > 0.02 * other.norm() for one, other in zip(found[1:], plain[1:], strict=True))
    assert watched.decisions == forced.decisions == (sum(LENGTHS) - LENGTHS[0] + 5) * own[0].shape[1]
    assert watched.elsewhere > 0.3 * watched.decisions


# Learning


@pytest.fixture
def learner(subject: Subject) -> LoadedModel:
    """A model of one's own, since learning may rearrange its parameters."""
    return subject.adapted()


@pytest.mark.parametrize(("weights", "packing"), [(None, True), (ONES, False), (WEIGHTS, True)])
def test_a_step_s_loss_is_the_sum_by_its_tokens_and_its_gradient_that_of_its_parts(
    subject: Subject, learner: LoadedModel, weights: list[torch.Tensor] | None, packing: bool
) -> None:
    """Over and over, so that what is done from the second step on, such as to capture passes, is seen too."""
    backend = trained(learner, execution(subject, packing=packing))
    wanted, size = by_hand(learner, DOCUMENTS, weights) / 50, size_by_hand(learner, DOCUMENTS, weights) / 50
    parts = torch.zeros_like(gradient(backend))
    for number, own in enumerate(DOCUMENTS):
        loss, part = step(backend, [own], 50, None if weights is None else [weights[number]])
        parts += part
    assert parts.norm() > 0
    for order in (range(len(DOCUMENTS)), [3, 1, 5, 0, 4, 2], range(len(DOCUMENTS))):
        own_weights = None if weights is None else [weights[i] for i in order]
        loss, found = step(backend, [DOCUMENTS[i] for i in order], 50, own_weights)
        assert abs(loss - wanted) <= subject.loose * size
        assert (found - parts).norm() <= 3 * subject.loose * parts.norm()


def test_a_step_at_another_temperature_is_of_the_divided_logits(subject: Subject, learner: LoadedModel) -> None:
    backend, temperature = trained(learner, execution(subject)), 0.5
    size = size_by_hand(learner, DOCUMENTS, WEIGHTS)
    loss, _ = step(backend, DOCUMENTS, 50, WEIGHTS, temperature)
    assert abs(50 * loss - by_hand(learner, DOCUMENTS, WEIGHTS, temperature)) <= 3 * subject.loose * size
    plain, unweighted = step(backend, DOCUMENTS, 50, None, temperature), step(backend, DOCUMENTS, 50, ONES, temperature)
    assert plain[0] == subject.near(unweighted[0])
    assert (plain[1] - unweighted[1]).norm() <= 3 * subject.loose * plain[1].norm()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_replays_experts_in_both_passes(subject: Subject, learner: LoadedModel, checkpointing: bool) -> None:
    """Its loss is that of the replayed log-probabilities, its gradient that of its parts."""
    if not routers(learner.module):
        pytest.skip("this backend has no routers that can be told")
    others = [(chosen + 1) % 8 for chosen in choices(learner, DOCUMENTS)]
    logprobs = learner.token_logprobs(DOCUMENTS, replay=Replay(others))
    wanted = -sum(float((each * own).sum()) for each, own in zip(logprobs, WEIGHTS, strict=True)) / 50
    size = sum(float((each * own).abs().sum()) for each, own in zip(logprobs, WEIGHTS, strict=True)) / 50
    backend = trained(learner, execution(subject, packing=True, gradient_checkpointing=checkpointing))

    def stepped(*places: int) -> tuple[float, torch.Tensor]:
        own = [DOCUMENTS[i] for i in places], 50, [WEIGHTS[i] for i in places], 1.0, Replay([others[i] for i in places])
        loss = backend.forward_backward(*own)
        assert loss is not None
        return loss.item(), gradient(backend)

    parts = torch.stack([stepped(place)[1] for place in range(len(DOCUMENTS))]).sum(0)
    loss, found = stepped(*range(len(DOCUMENTS)))
    assert abs(loss - wanted) <= 2 * subject.loose * size
    assert (found - parts).norm() <= 3 * subject.loose * parts.norm()
    plain, without = step(backend, DOCUMENTS, 50, WEIGHTS)
    assert abs(plain - loss) > 1e-3
    assert (without - found).norm() > 0.05 * found.norm()


def test_all_of_it_is_in_training_mode_from_the_first_step_on(subject: Subject, learner: LoadedModel) -> None:
    """Layers heed gradient checkpointing and dropout in no other."""
    backend = trained(learner, execution(subject))
    step(backend, documents(), 1.0)
    assert [name for name, module in learner.module.named_modules() if not module.training] == []


def test_a_gradient_takes_the_place_of_what_stood_there_and_is_divided_by_the_tokens(
    subject: Subject, learner: LoadedModel
) -> None:
    backend = trained(learner, execution(subject))
    _, first = step(backend, DOCUMENTS, 50)
    for parameter in backend.parameters:
        if parameter.grad is None:
            parameter.grad = torch.full_like(parameter, 1e3)
        else:
            parameter.grad.fill_(1e3)
    loss, again = step(backend, DOCUMENTS, 50)
    assert (again - first).norm() <= 3 * subject.loose * first.norm()
    half, smaller = step(backend, DOCUMENTS, 100)
    assert half == subject.near(loss / 2)
    assert (2 * smaller - first).norm() <= 3 * subject.loose * first.norm()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gradient_is_that_of_the_loss(subject: Subject, learner: LoadedModel, temperature: float) -> None:
    """Along it the loss changes by what it promises: in the last layer's experts, which change nobody's routing."""
    backend = trained(learner, execution(subject))
    step(backend, DOCUMENTS, 50, None, temperature)
    last = max(int(found[1]) for name in learner.trainable() if (found := re.search(r"\.layers\.(\d+)\.", name)))
    masks = within(backend, [value for name, value in learner.trainable().items() if f".layers.{last}.mlp." in name])
    step(backend, DOCUMENTS, 50, None, temperature)
    along = [mask * (0 if p.grad is None else p.grad) for mask, p in zip(masks, backend.parameters, strict=True)]
    norm = float(torch.cat([each.flatten() for each in along]).norm())
    assert norm > 0
    length = (0.2 if subject.on_gpu else 0.02) / norm

    def loss_at(distance: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(backend.parameters, along, strict=True):
                parameter.add_(direction, alpha=distance)
        found, _ = step(backend, DOCUMENTS, 50, None, temperature)
        if temperature == 1:
            assert learner.loss_sum(DOCUMENTS) / 50 == subject.near(found)
        return found

    up, down = loss_at(length), loss_at(-2 * length)
    assert (up - down) / 2 == pytest.approx(length * norm**2, rel=0.2 if subject.on_gpu else 0.01)


def test_the_adapter_that_learns_is_the_one_that_is_measured_and_saved(
    subject: Subject, learner: LoadedModel, tmp_path: Path
) -> None:
    names = [*learner.trainable()]
    before = learner.logits(IDS)
    backend = trained(learner, execution(subject))
    step(backend, DOCUMENTS, 50)
    torch.optim.SGD(backend.parameters, lr=0.05).step()
    after = learner.logits(IDS)
    assert not torch.equal(after, before)
    assert [*learner.trainable()] == names
    learner.save_adapter(tmp_path)
    assert torch.equal(subject.load(tmp_path).logits(IDS), after)


@pytest.mark.parametrize("packing", [False, True])
def test_it_computes_at_least_the_tokens_that_are_there(subject: Subject, learner: LoadedModel, packing: bool) -> None:
    backend = trained(learner, execution(subject, packing=packing))
    for lengths in (LENGTHS, (40,), (7, 7, 7), (3, 90, 3, 3), ()):
        assert backend.computed_tokens(lengths) >= sum(lengths)
    assert backend.computed_tokens(LENGTHS) == backend.computed_tokens(sorted(LENGTHS))


def test_each_time_it_takes_less_memory_the_step_stays_the_same_until_nothing_is_left_to_give(
    subject: Subject, learner: LoadedModel
) -> None:
    backend = trained(learner, execution(subject, micro_batch=6))
    loss, wanted = step(backend, DOCUMENTS, 50)
    step(backend, DOCUMENTS, 50)
    given = []
    while clause := backend.release_memory():
        given.append(clause)
        assert len(given) < 100, given[-5:]
        again, found = step(backend, DOCUMENTS, 50)
        assert again == subject.near(loss)
        assert (found - wanted).norm() <= 3 * subject.loose * wanted.norm(), clause
    assert given
    assert len({*given}) == len(given)
    assert backend.release_memory() == ""
    assert step(backend, DOCUMENTS, 50)[0] == subject.near(loss)


def test_a_later_process_goes_on_as_the_first_one_had_to(subject: Subject) -> None:
    asked = execution(subject, micro_batch=6)
    first, second = (trained(subject.adapted(), asked) for _ in range(2))
    loss, wanted = step(first, DOCUMENTS, 50)
    while first.release_memory():
        pass
    state = json.loads(json.dumps(first.state()))
    assert state != second.state()
    second.restore(state)
    assert second.state() == first.state() == state
    assert second.computed_tokens(LENGTHS) == first.computed_tokens(LENGTHS)
    again, found = step(second, DOCUMENTS, 50)
    assert again == subject.near(loss)
    assert (found - wanted).norm() <= 3 * subject.loose * wanted.norm()


def test_what_another_execution_came_to_is_no_guide(subject: Subject) -> None:
    first = trained(subject.fresh(), execution(subject, micro_batch=6))
    while first.release_memory():
        pass
    for other in ({"micro_batch": 5}, {"packing": not execution(subject).packing}, {"pack_tokens": 99}):
        second = trained(subject.fresh(), execution(subject, **{"micro_batch": 6, **other}))
        before = second.state()
        second.restore(json.loads(json.dumps(first.state())))
        assert second.state() == before, other


def test_what_it_did_is_of_json_s_types(subject: Subject, learner: LoadedModel) -> None:
    backend = trained(learner, execution(subject))
    step(backend, DOCUMENTS, 50)
    assert backend.facts()
    assert json.loads(json.dumps(backend.facts())) == backend.facts()


# Answers


PROMPTS = [[5, 30, 40, 50, 60], [1, 20], [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17], [1, 400, 20]]


@pytest.mark.parametrize("rows", [1, 64])
def test_greedy_answers_are_the_highest_logits_up_to_the_end(subject: Subject, adapted: LoadedModel, rows: int) -> None:
    heard: list[tuple[int, int]] = []
    made = adapted.generate(PROMPTS, Sampling(8), rows=rows, progress=lambda done, of: heard.append((done, of)))
    assert made.how
    assert heard[-1] == (len(PROMPTS), len(PROMPTS))
    for prompt, found in zip(PROMPTS, made.tokens, strict=True):
        for token, (wanted, lead) in zip(found, greedy(adapted, prompt, 8), strict=False):
            if token != wanted:
                assert lead < 20 * subject.loose, (prompt, found)  # tied in bfloat16
                break
        else:
            assert len(found) == len([*greedy(adapted, prompt, 8)])


def test_an_answer_stops_at_its_end_token_which_it_holds(subject: Subject) -> None:
    """What the demo model has learnt: to answer sums in a box, and to end."""
    model = subject.demo()
    prompt = token_ids(model.tokenizer, ["<s>Compute 12 + 30."])[0]
    [answer] = model.generate([prompt], Sampling(60), rows=1).tokens
    followed = [token for token, _ in greedy(model, prompt, 60)]
    assert END in followed, "a model that never ends shows nothing"
    assert answer[-1] == END
    assert END not in answer[:-1]


def test_a_sampled_answer_is_of_the_tokens_that_top_p_leaves_and_follows_from_its_seed(
    subject: Subject, adapted: LoadedModel
) -> None:
    prompt, top_p = PROMPTS[0], 0.5
    chances = (adapted.logits(prompt)[-1] / 2.0).softmax(-1).sort(descending=True)
    before = chances.values.cumsum(-1) - chances.values
    allowed = {*chances.indices[before < top_p + 0.02].tolist()}  # with those at the edge, by rounding
    assert 1 < len(allowed) < 700, "a distribution of one token, or of all, shows nothing"

    def sample(first_seed: int) -> Generation:
        seeds = range(first_seed, first_seed + 40)
        return adapted.generate([prompt] * 40, Sampling(1, temperature=2.0, top_p=top_p), rows=40, seeds=seeds)

    first = sample(0)
    assert {token for answer in first.tokens for token in answer} <= allowed
    assert len({*map(tuple, first.tokens)}) > 1
    assert first.tokens == sample(0).tokens != sample(40).tokens
    wanted = {int(token): float(chance.log()) for token, chance in zip(chances.indices, chances.values, strict=True)}
    for [token], [logprob] in zip(first.tokens, first.logprobs, strict=True):
        assert logprob == pytest.approx(wanted[token], abs=max(1e-3, 2 * subject.loose))
    nearly_greedy = adapted.generate([prompt] * 10, Sampling(4, temperature=2.0, top_p=1e-6), rows=10).tokens
    assert nearly_greedy == adapted.generate([prompt] * 10, Sampling(4), rows=10).tokens


def test_many_prompts_come_back_in_their_order_and_each_is_heard_once(subject: Subject, adapted: LoadedModel) -> None:
    """More than the fewest for which weights are merged, where they are."""
    rng = random.Random(0)
    prompts = [[rng.randrange(5, 700) for _ in range(rng.randrange(1, 30))] for _ in range(40)]
    heard: list[tuple[int, list[int]]] = []
    made = adapted.generate(prompts, Sampling(1), rows=16, on_answer=lambda *answer: heard.append(answer)).tokens
    assert sorted(heard) == [*enumerate(made)]
    lengths = [len(answer) for answer in made]
    assert lengths == [1] * 40
    for prompt, [token] in zip(prompts, made, strict=True):
        [(wanted, lead)] = greedy(adapted, prompt, 1)
        assert token == wanted or lead < 20 * subject.loose

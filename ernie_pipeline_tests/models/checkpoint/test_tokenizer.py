import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text, token_ids
from ernie_pipeline.utils.errors import PipelineError

CHAT = [{"role": "user", "content": "What is 2 + 3?"}]


def test_a_prompt_is_the_beginning_of_the_whole_conversation() -> None:
    tokenizer = load_tokenizer(str(BASE))
    prompt = prompt_text(tokenizer, CHAT)
    whole = tokenizer.apply_chat_template([*CHAT, {"role": "assistant", "content": " 5"}], tokenize=False)
    assert whole == prompt + " 5" + tokenizer.eos_token
    ids, whole_ids = token_ids(tokenizer, [prompt, whole])
    assert whole_ids[: len(ids)] == ids
    assert (ids[0], whole_ids[-1], ids.count(tokenizer.bos_token_id)) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        1,
    )


def test_batches_are_padded_on_the_left() -> None:
    tokenizer = load_tokenizer(str(BASE))
    mask = tokenizer(["1", "1 + 1 + 1"], padding=True)["attention_mask"]
    assert (mask[0][0], mask[0][-1]) == (0, 1)


def told(folder: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        load_tokenizer(str(folder))
    assert str(caught.value).startswith(f"tokenizer {folder}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tokenizer_without_a_chat_template_is_refused(without: Callable[..., Path]) -> None:
    assert "has no chat_template; use an instruction-tuned checkpoint" in told(without("chat_template.jinja"))


def test_a_checkpoint_without_a_tokenizer_is_refused(without: Callable[..., Path]) -> None:
    folder = without("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    assert "cannot be loaded (none of a tokenizer's files is there); set base_model.name" in told(folder)


def test_a_tokenizer_without_an_end_token_is_refused(checkpoint: Path) -> None:
    file = checkpoint / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["eos_token"]
    file.write_text(json.dumps(config))
    assert "has no eos_token" in told(checkpoint)


def test_a_folder_without_a_tokenizer_is_refused(without: Callable[..., Path]) -> None:
    told(without("tokenizer.json", "tokenizer_config.json"))


def test_a_truncated_tokenizer_is_refused(checkpoint: Path) -> None:
    os.truncate(checkpoint / "tokenizer.json", 5000)
    assert "cannot be loaded" in told(checkpoint)


def test_a_tokenizer_of_the_checkpoints_own_code_is_refused_and_the_code_not_run(
    without: Callable[..., Path],
) -> None:
    folder = without("tokenizer.json")
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    told(folder)
    assert not (folder / "ran").exists()

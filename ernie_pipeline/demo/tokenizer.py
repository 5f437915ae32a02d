"""The demo model's own tokenizer: byte-level BPE with one token a digit, and a chat template of plain text."""

import re
from collections.abc import Iterable
from typing import Any

from ernie_pipeline.demo.problems import INSTRUCTION

VOCABULARY = 768
CHAT_TEMPLATE = (
    "{{ '<s>' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' Answer:' + message['content'] + '</s>' }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' Answer:' }}{% endif %}"
)
"""Plain text, as ERNIE-4.5's own "User: ... Assistant: ..." is: no token of it is foreign to the pre-training text."""


def train_tokenizer(texts: Iterable[str], questions: Iterable[str]) -> Any:
    """A `PreTrainedTokenizerFast` of `VOCABULARY` tokens from the corpus and the wording of the demo's questions.

    Digits stand alone, so no number of a question can become a token.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],  # ids 0, 1, 2 as in Ernie4_5_MoeConfig
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    wording = {re.sub(r"\d", "", INSTRUCTION + question) for question in questions}
    tokenizer.train_from_iterator([*texts, *sorted(wording)], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=2048
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast

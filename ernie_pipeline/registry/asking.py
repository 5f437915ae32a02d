"""A registered model in this process, for one person who asks: its answers come piece by piece."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ernie_pipeline.models import backend_named
from ernie_pipeline.models.backend import Sampling
from ernie_pipeline.models.checkpoint.tokenizer import answer_texts
from ernie_pipeline.recipe.settings import Settings
from ernie_pipeline.registry.export.source import find_source
from ernie_pipeline.registry.serving.answering import Answering
from ernie_pipeline.registry.serving.batcher import STRIDE, seeds_of
from ernie_pipeline.registry.serving.conversation import Message, checked_messages, checked_settings
from ernie_pipeline.registry.serving.refusal import Refusal
from ernie_pipeline.store.quantized_base import FOLDER, PLACE
from ernie_pipeline.utils.errors import PipelineError

PIECES = (4, 8, 16, 32)
"""The tokens of the first pieces; the last number is that of all others. Each is a pass over what is there."""


class Asked:
    """The model that `named` names, see `find_source`, loaded. `name`: what it is, for a person.

    Raises `PipelineError` for one that is not there, or is damaged.
    """

    def __init__(self, settings: Settings, named: str | None):
        import torch

        os.environ.setdefault(PLACE, str(settings.store / FOLDER))
        with TemporaryDirectory(prefix="ernie_pipeline_") as scratch:
            source = find_source(settings, named, Path(scratch))
            cuda = torch.cuda.is_available()
            # grouped and peft load each other's adapters, as in `ServedModel.load_context`
            backend = "peft" if source.spec.backend == "grouped" and not cuda else source.spec.backend
            spec = source.spec.model_copy(update={"backend": backend})
            self.model = backend_named(backend).load(spec, "cuda" if cuda else "cpu")
        self.name, self.instruction, self.max_new_tokens = source.name, source.instruction, source.max_new_tokens
        self.answering = Answering(
            self.model, instruction=self.instruction, max_new_tokens=self.max_new_tokens, max_batch=1
        )

    def answer(
        self, messages: Sequence[Message], temperature: float = 0.0, max_new_tokens: int | None = None
    ) -> Iterator[str]:
        """The answer to a conversation, as its text grows. Raises `PipelineError` for one that does not fit."""
        try:
            given = {"temperature": temperature, "max_new_tokens": max_new_tokens}
            settings = checked_settings(given, self.max_new_tokens, limit="--max-new-tokens")
            prompt = self.answering.prompt(
                checked_messages([dict(each) for each in messages], self.instruction), settings
            )
        except Refusal as refusal:
            raise PipelineError(refusal.sentence) from None
        made, shown, pieces = list[int](), "", iter(PIECES)
        ends, [seed] = self.answering.batcher.ends, seeds_of(settings, 1)
        while len(made) < settings.max_new_tokens:
            piece = min(next(pieces, PIECES[-1]), settings.max_new_tokens - len(made))
            sampling = Sampling(piece, settings.temperature, settings.top_p)
            seeds = [(seed + STRIDE * len(made)) % 2**62]
            [new] = self.model.generate([[*prompt.tokens, *made]], sampling, rows=1, seeds=seeds).tokens
            made += new
            [text] = answer_texts(self.model.tokenizer, [made])
            text = text.rstrip("\ufffd")  # half a character, whose other half is still to come
            yield text[len(shown) :]
            shown = text
            if len(new) < piece or new[-1] in ends:
                return

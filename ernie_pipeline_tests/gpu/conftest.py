import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text


def sample_prompts() -> list[str]:
    """Of many lengths, in no order of length."""
    tokenizer = load_tokenizer(str(BASE))
    questions = [f"What is {37 * number % 89} + {53 * number % 97}{' + 1' * (number % 13)}?" for number in range(40)]
    long = [prompt_text(tokenizer, [{"role": "user", "content": each}]) for each in questions]
    short = [f"<s>{'1 + ' * (number % 7)}{number} =" for number in range(40)]
    return [prompt for pair in zip(long, short, strict=True) for prompt in pair]


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return sample_prompts()

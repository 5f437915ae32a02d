import pytest

from ernie_pipeline.demo import BASE
from ernie_pipeline.demo.problems import demo_rows
from ernie_pipeline.models.checkpoint.tokenizer import load_tokenizer, prompt_text


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Of many lengths, in no order of length."""
    tokenizer = load_tokenizer(str(BASE))
    messages = [row["responses_create_params"]["input"] for row in demo_rows(40, seed=5)]
    long = [prompt_text(tokenizer, each) for each in messages]
    short = [f"<s>{'1 + ' * (number % 7)}{number} =" for number in range(40)]
    return [prompt for pair in zip(long, short, strict=True) for prompt in pair]

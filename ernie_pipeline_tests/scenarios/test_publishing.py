"""The whole way to the hub by the real command line, against the stand-in of `registry/publish/hub.py`."""

import json
import sys
from pathlib import Path

import pytest

from ernie_pipeline.store.sealed import list_files
from ernie_pipeline_tests.registry.publish.hub import header_errors, serving
from ernie_pipeline_tests.scenarios.chain import (
    FRESH,
    QUICK_RECIPE,
    Home,
    finish,
    materialize,
    plan,
    refresh,
    start_python,
)

USER = "zarquon-of-this-machine"
PUBLISH = '[publish]\nrepo = "lab/quick"\nforms = ["merged", "peft"]\ntag = "v1"\n'


def test_a_model_is_published_once_it_is_the_champion_and_not_again(tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    home, recipe = Home(tmp_path / "home"), tmp_path / "recipe.toml"
    recipe.write_text(QUICK_RECIPE + PUBLISH)
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        keywords = {"recipe": str(recipe), **hub.environment, "LOGNAME": USER, "USER": USER}

        run = materialize(home.home, **keywords)  # two steps teach nothing: the gate stays shut
        assert run.status == 0, run.output
        assert "models:/quick/1 is not the champion, so it was not published" in run.output
        assert hub.writes() == []
        assert plan(home.home, **keywords).todo == {}

        promote = ["-m", "ernie_pipeline", "promote", "1"]
        ended = finish(start_python(promote, home.home, recipe, None, hub.environment))
        assert ended.status == 0, ended.output
        planned = plan(home.home, **keywords)
        assert planned.todo == {"published_model": "stale: version 1 of quick is the champion now, and was not"}
        refused = plan(home.home, **{**keywords, "HF_TOKEN": "hf_reads"}).asset("published_model")["refused"]
        assert refused.startswith("the token of me may only read, not publish to lab/quick")

        published = refresh(home.home, **keywords)
        assert published.status == 0, published.output
        told = home.json("published_model", "publication.json")
        repository = hub.repositories["lab/quick"]
        assert repository.tags == {"v1": told["commit"]}
        assert [message for message, _ in repository.commits.values()] == [
            "initial commit",
            "Version 1 of quick, by ernie_pipeline",
        ]
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", _template(hub.url))
        fetched = Path(
            snapshot_download(
                "lab/quick", revision="v1", local_dir=tmp_path / "fetched", endpoint=hub.url, token="hf_writes"
            )
        )
        files = {k: v for k, v in list_files(fetched).items() if not k.startswith((".gitattributes", ".cache"))}
        assert files == told["files"]
        assert {"model.safetensors", "config.json", "peft/adapter_config.json"} < {*files}
        assert header_errors((fetched / "README.md").read_text()) == []
        _loads_and_answers(fetched)
        uploaded = [content for _, files in repository.commits.values() for content, _ in files.values()]
        private = [each.encode() for each in (str(tmp_path), USER, "sqlite:", str(Path.home()))]
        assert [each for each in private if any(each in content for content in uploaded)] == []

        hub.log.clear()
        again = materialize(home.home, select="published_model", **keywords)
        assert (again.status, again.built, again.reused) == (0, [], ["published_model"])
        assert hub.writes() == []
        everything = (run.output, published.output, again.output)
        assert not [text for text in everything if "hf_writes" in text]
        assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hf_writes" in p.read_bytes()]

        del hub.repositories["lab/quick"]
        todo = plan(home.home, **keywords).todo["published_model"]
        assert (
            todo == f"stale: commit {told['commit'][:8]} of lab/quick is not on the hub any more, or not for this token"
        )
        recipe.write_text(QUICK_RECIPE)
        assert (plan(home.home, recipe=recipe).status, plan(home.home, recipe=recipe).todo) == FRESH


def _template(url: str) -> str:
    return f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


def _loads_and_answers(folder: Path) -> None:
    """By transformers alone, as whoever finds it on the hub would."""
    import subprocess

    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))\n"
        "text = tokenizer.apply_chat_template([{'role': 'user', 'content': 'Compute 12 + 30.'}], tokenize=False,"
        " add_generation_prompt=True)\n"
        "ids = tokenizer(text, return_tensors='pt').input_ids\n"
        "print(repr(tokenizer.decode(model.generate(ids, max_new_tokens=8)[0, ids.shape[1]:])))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=folder.parent)
    assert ended.returncode == 0, ended.stderr
    assert json.dumps(ended.stdout.strip()) != '""'

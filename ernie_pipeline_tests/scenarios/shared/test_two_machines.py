"""Two machines, each with a cache of its own, build one recipe together in a bucket: each fingerprint once.

Where it may (root, `ip netns`), each is in a network namespace of its own, and the bucket beyond a link; else they are
two processes. A third machine comes when all is done.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ernie_pipeline.store.shared.bucket import Bucket
from ernie_pipeline_tests.scenarios.chain import (
    ASSETS,
    FRESH,
    IN_PROCESS,
    QUICK_RECIPE,
    Run,
    builds,
    finish,
    materialize,
    plan,
    start,
)
from ernie_pipeline_tests.scenarios.homes import InBucket, in_a_bucket

PROBLEM = "artifact altered: train.parquet"


@dataclass(frozen=True)
class Team:
    """The machines' caches, what they share, and what the first two did at the same time."""

    caches: tuple[Path, Path, Path]
    shared: dict[str, str]
    recipe: Path
    bucket: Bucket
    homes: InBucket
    runs: tuple[Run, Run]
    apart: bool

    def environment(self, machine: int) -> dict[str, str]:
        return {**self.shared, "ERNIE_PIPELINE_CACHE": str(self.caches[machine])}


@contextmanager
def namespaces() -> "Iterator[list[list[str]]]":
    """For each of two network namespaces, the command that runs one in it; the host is 10.231.1.1 to both."""
    names, commands = [f"ernie{os.getpid()}-{n}" for n in (1, 2)], list[list[str]]()
    try:
        for number, name in enumerate(names, 1):
            link, net = f"e{os.getpid()}-{number}", f"10.231.{number}"
            for command in (
                f"ip netns add {name}",
                f"ip link add {link} type veth peer name eth0 netns {name}",
                f"ip addr add {net}.1/30 dev {link}",
                f"ip link set {link} up",
                f"ip -n {name} addr add {net}.2/30 dev eth0",
                f"ip -n {name} link set lo up",
                f"ip -n {name} link set eth0 up",
                f"ip -n {name} route add default via {net}.1",
            ):
                subprocess.run(command.split(), check=True, capture_output=True)
            commands.append(["ip", "netns", "exec", name])
        yield commands
    finally:
        for number, name in enumerate(names, 1):  # the link first: with its namespace it would go some time later
            subprocess.run(["ip", "link", "del", f"e{os.getpid()}-{number}"], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def may_have_namespaces() -> bool:
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    try:
        with namespaces():
            return True
    except subprocess.CalledProcessError:
        return False


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    recipe = folder / "recipe.toml"
    recipe.write_text(QUICK_RECIPE)
    apart = may_have_namespaces()
    with namespaces() if apart else _nowhere() as within, in_a_bucket("10.231.1.1" if apart else "127.0.0.1") as homes:
        caches = (folder / "first", folder / "second", folder / "third")
        shared = {**homes.variables(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        homes.records.clear()
        runs = [
            start(
                cache,
                recipe=recipe,
                config=IN_PROCESS,
                within=command,
                **shared | {"ERNIE_PIPELINE_CACHE": str(cache)},
            )
            for cache, command in zip(caches, within, strict=False)
        ]
        first, second = (finish(run) for run in runs)
        yield Team(caches, shared, recipe, homes.bucket(folder), homes, (first, second), apart)


@contextmanager
def _nowhere() -> "Iterator[list[list[str]]]":
    yield [[], []]


def test_two_machines_build_each_fingerprint_once(team: Team) -> None:
    first, second = team.runs
    assert [first.status, second.status] == [0, 0], first.output[-3000:] + second.output[-3000:]
    assert sorted([*first.built, *second.built]) == sorted(ASSETS)
    assert set(first.built) | set(first.reused) == set(second.built) | set(second.reused) == set(ASSETS)
    assert len(team.bucket.list("builds")) == len(ASSETS)
    counted = [builds(cache) for cache in team.caches[:2]]
    assert {name: sum(count.get(name, 0) for count in counted) for name in ASSETS} == dict.fromkeys(ASSETS, 1)
    assert not team.bucket.list("unfinished")


def test_a_third_machine_sees_that_all_is_fresh_and_downloads_no_artifact_for_it(team: Team) -> None:
    """But the registration, to ask MLflow whether it still holds."""
    planned = plan(team.caches[2], recipe=team.recipe, **team.environment(2))
    assert (planned.status, planned.todo) == FRESH
    assert [p.name for p in (team.caches[2] / "store").glob("[!.]*")] == ["registered_model"]


def test_what_is_damaged_in_the_bucket_is_built_again_by_whichever_machine_comes(team: Team) -> None:
    [key] = [key for key in team.bucket.list("store/math_split") if key.endswith("/train.parquet")]
    stored = team.bucket.get(f"store/math_split/{key}")
    assert stored
    team.bucket.put(f"store/math_split/{key}", stored.body[:-1] + b"?")
    planned = plan(team.caches[1], recipe=team.recipe, **team.environment(1))
    assert planned.todo["math_split"] == f"stale: {PROBLEM}"
    run = materialize(team.caches[2], recipe=team.recipe, config=IN_PROCESS, **team.environment(2))
    assert run.status == 0, run.output[-3000:]
    assert (run.built, sorted(run.reused)) == (["math_split"], sorted({*ASSETS} - {"math_split"}))
    assert f"math_split was built again: {PROBLEM}" in run.output
    planned = plan(team.caches[0], recipe=team.recipe, **team.environment(0))
    assert (planned.status, planned.todo) == FRESH

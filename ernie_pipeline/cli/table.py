"""Every command by its name, in the order of the help: by import path, so that to list them loads none of them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """`where`: "module:function" below `ernie_pipeline.cli`; "" for a group, whose commands are `group`.

    `exits`: what its exit statuses mean, besides 2. `settings`: whether --home, --recipe and --source are for it.
    `hidden`: an old name, which still works.
    """

    help: str
    where: str = ""
    exits: str = "0 done, 1 an error"
    group: "Mapping[str, Entry] | None" = None
    settings: bool = True
    hidden: bool = False

    @property
    def told(self) -> str:
        """The help of the command itself."""
        return f"{_sentence(self.help)}\n\nExit status: {self.exits}."


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}{'' if words.endswith('?') else '.'}"


INIT = Entry(
    "write a commented recipe for your own rows",
    "init:init",
    "0 written, 1 the rows cannot be read, or the file is there already",
    settings=False,
)
BUILDS = "0 all is built, 1 the run failed, 4 above the budget and not started, 130 interrupted"
MEASURED = "0 all that was asked passed, 3 something differs, 1 something could not be done"

COMMANDS: Mapping[str, Entry] = {
    "run": Entry("build what is stale, show how it goes and what came of it", "run:run", BUILDS),
    "plan": Entry("what is stale, and why", "plan:plan", "0 fresh, 3 something is stale, 1 it cannot be built"),
    "refresh": Entry("build what the plan says, under Dagster's own log", "refresh:refresh", BUILDS),
    "up": Entry("Dagster's pages and MLflow's on this home, until interrupted", "up:up", "0 interrupted, 1 one ended"),
    "ask": Entry("ask the champion a question", "ask:ask"),
    "chat": Entry("talk to the champion", "chat:chat"),
    "serve": Entry("serve a model: chat completions and responses", "serve:serve", "that of the server"),
    "compare": Entry(
        "two models on the same held-out rows", "compare:compare", "0 compared, 1 they cannot be compared"
    ),
    "verify": Entry("is this the model that was measured?", "verify:verify", MEASURED),
    "promote": Entry("verify a version, and make it the champion", "promote:promote", MEASURED),
    "rollback": Entry("the champion before this one again, once verified", "promote:rollback", MEASURED),
    "export": Entry(
        "a registered adapter in a form that others load",
        "export:export",
        "0 loaded back, 3 written and not loaded back here, 1 it cannot be made",
    ),
    "grade": Entry(
        "grade the answers of a JSON Lines file",
        "grade:grade",
        "0 all rows were graded, 1 the file is wrong",
        settings=False,
    ),
    "recipe": Entry(
        "show, compare, check and write recipes",
        group={
            "show": Entry("a recipe with every key that it has", "recipe:show"),
            "diff": Entry("the keys that differ between two recipes", "recipe:diff", "0 none, 3 some, 1 an error"),
            "check": Entry("whether a recipe is one that can be built", "recipe:check", "0 it is, 1 it is not"),
            "init": INIT,
        },
    ),
    "store": Entry(
        "what is kept, whether it is intact, removing what is idle",
        group={
            "list": Entry("what is kept, and what for", "store:list_contents"),
            "verify": Entry("read every file again", "store:verify", "0 intact, 3 something is damaged, 1 an error"),
            "prune": Entry("what nothing needs; with --delete it goes", "store:prune"),
        },
    ),
    "doctor": Entry(
        "what is here to work with, and what to do", "doctor:doctor", "0 it can work, 1 nothing can work here"
    ),
    "init": Entry(INIT.help, INIT.where, INIT.exits, settings=False, hidden=True),
}

"""A wrong command line in a sentence of our own, with what may have been meant."""

import re
from typing import Any

from ernie_pipeline.utils.near import did_you_mean

CHOICE = re.compile(r"(?:Value error, )?(?P<value>'.*?'|\".*?\") is not one of (?P<choices>.*)\.", re.DOTALL)
EXTRA = re.compile(r"Got unexpected extra argument\(?s?\)? \((?P<words>.*)\)", re.DOTALL)
MISSING = "Missing command."


def usage_sentence(error: Any) -> str:
    """What is wrong, and what to do, of an error that typer raises for a command line."""
    context, said = getattr(error, "ctx", None), str(error.format_message())
    if hasattr(error, "option_name") and not hasattr(error, "possibilities"):
        return f"{error.option_name} is given without a value; name one, or leave {error.option_name} out"
    if context is None:
        return said
    command, parameter = context.command_path, getattr(error, "param", None)
    if hasattr(error, "possibilities"):
        return f"{command} has no option {error.option_name!r}; {_near_option(error.option_name, context)}"
    if hasattr(error, "param_type"):
        return f"{command} needs {_name(parameter)}, {getattr(parameter, 'help', '')}"
    if parameter is not None:
        return _wrong_value(_name(parameter), str(error.message), command)
    if extra := EXTRA.fullmatch(said):
        return f'{command} takes no {extra["words"]!r}; "{command} --help" tells what it takes'
    if said == MISSING:
        return f"name a command: {', '.join(context.command.list_commands(context))}"
    return said


def _wrong_value(name: str, said: str, command: str) -> str:
    if choice := CHOICE.fullmatch(said):
        choices = re.findall(r"'([^']*)'", choice["choices"])
        hint = did_you_mean(choice["value"][1:-1], choices) or "name one of them"
        return f"{name} {choice['value']} is none of {', '.join(choices)}; {hint}"
    said = said.removeprefix("Value error, ").partition(", unable to parse")[0].rstrip(".")
    return f'{name}: {said[:1].lower()}{said[1:]}; "{command} --help" tells what it takes'


def _near_option(asked: str, context: Any) -> str:
    """By their words: with the dashes, which all of them have, any two are half alike."""
    known = [name for each in context.command.get_params(context) for name in each.opts if name.startswith("--")]
    near = did_you_mean(asked.lstrip("-"), [name.lstrip("-") for name in known])
    return near.replace("'", "'--", 1) or f"the options are {', '.join(known)}"


def _name(parameter: Any) -> str:
    """ "--port" of an option, "OUT" of an argument."""
    name: str = parameter.opts[0]
    return name if name.startswith("-") else str(parameter.metavar or name.upper()).strip("[]")

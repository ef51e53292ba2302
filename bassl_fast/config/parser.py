"""Command-line parsers, by jsonargparse: the signature of a verb's function is the schema.

All that depends on the internals and messages of jsonargparse is in this file. An unknown key, on the command line or
in a YAML file, becomes a one-line error with the nearest name. On the command line a class may be given by its name in
any spelling (`--method bassl+shotcol`), and its arguments without `init_args` (`--method.radius 4`).
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import typing
from argparse import SUPPRESS, ArgumentError, RawDescriptionHelpFormatter
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import takewhile
from types import FunctionType
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from shard_tools import plugins
from shard_tools.errors import ConfigError, masked
from shard_tools.storage.untrusted import one_line

from .keys import check_keys, fields_of
from .spelling import class_name, class_names, nearest
from .yaml_file import check_duplicates, read_yaml

_UNION = "Does not validate against any of the Union subtypes"  # jsonargparse's message, also around our own errors


# jsonargparse's message about a value of another type, also around those of a union.
_WRONG_TYPE = re.compile(
    rf"^(?P<key>[\w.]+(?:: [\w.]+)*): (?:{_UNION}.*?Errors: - )?Expected an? "
    r"(?:<class '(?P<type>\w+)'>|typing\.Literal\[(?P<choices>.*?)\])"
    r"(?:\. Got value: (?P<value>.*?)$| - .*Given value: (?P<given>.*?)$|$)"
)
_TEXTS = list[str] | str  # one text, or several: `--data.features A B`
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
_KINDS |= dict.fromkeys(("list", "tuple"), "a list, as [A, B]")


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's help, with the worked example on separate lines."""


class _Parser(ArgumentParser):
    """Also of the help of a class (`--method.help NAME`), for which jsonargparse makes a parser of the same type."""

    def __init__(self, **kwargs: Any) -> None:
        defaults: dict[str, Any] = {"prog": "bassl-fast VERB", "formatter_class": _Help}
        super().__init__(**(defaults | kwargs))


def make_parser(function: Callable, positional: bool = False, for_help: bool = False, **kwargs: Any) -> ArgumentParser:
    """Parser for the arguments of `function`, except `recipe`, which `call` fills in.

    Args:
        positional: whether required arguments have no `--`.
        for_help: the parser will only print help; skips importing classes, which takes seconds.
    """
    takes_class = [name for name, hint in function.__annotations__.items() if str(hint).startswith("Callable")]
    if for_help:
        function = _without_classes(function, takes_class)
    elif takes_class:
        plugins.load_classes()
    parser = _Parser(exit_on_error=False, allow_abbrev=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file; its keys are the options below.")
    parser.add_function_arguments(function, skip={"recipe"}, as_positional=positional, fail_untyped=True)
    actions: list[Any] = parser._actions
    for action in actions:
        if not action.option_strings and getattr(action, "_typehint", None) in (list[str], _TEXTS):
            action.nargs, action._typehint, action.metavar = "+", str, action.dest.rstrip("s").upper()
        if getattr(action, "_typehint", None) is bool:
            action.metavar = "[true|false]"
        if for_help and action.required and action.option_strings:
            action.help += " Required, here or in --config."
            action.required, action.default = False, SUPPRESS
        if for_help and action.dest in takes_class:
            option = f"--{action.dest}.help"
            action.help += f" `{option}` lists the classes, `{option} NAME` shows the arguments of one."
    return parser


def _without_classes(function: Callable, takes_class: list[str]) -> Callable:
    """A copy of `function` in which the arguments `takes_class` are typed as text."""
    function = inspect.unwrap(function)
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__doc__, copy.__module__, copy.__qualname__ = function.__doc__, function.__module__, function.__qualname__
    copy.__annotations__ = function.__annotations__ | dict.fromkeys(takes_class, "str")
    copy.__annotations__ = typing.get_type_hints(copy)  # now no hint names a class
    return copy


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """Resolve `argv` and the YAML files it names; `--encoder.help` prints the classes and exits.

    Raises:
        ConfigError: one line that names the wrong key and the nearest known one.
    """
    argv = list(_spelt_out(parser, list(_gathered(parser, argv))))
    _check_options(parser, argv)
    _list_classes(parser, argv)
    _check_mappings(argv)
    for path in _config_files(argv):
        check_keys(_known(parser), read_yaml(path), path)
    try:
        config = parser.parse_args(argv)
    except ArgumentError as error:
        raise ConfigError(_explained(str(error), parser)) from None
    _check_values(parser, config.as_dict())
    return config


def parse_dict(parser: ArgumentParser, config: dict[str, Any], source: str) -> Namespace:
    """Resolve a configuration given as nested dictionaries; `source` is for errors."""
    check_keys(_known(parser), config, source)
    try:
        return parser.parse_object(config)
    except ArgumentError as error:
        raise ConfigError(f"{source}: {_explained(str(error), parser)}") from None


def as_dict(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """The resolved configuration as plain values, to be stored with results."""
    resolved = yaml.safe_load(parser.dump(config, skip_validation=True))
    resolved.pop("config", None)
    return resolved


def run(function: Callable, config: dict[str, Any], source: str) -> Any:
    """Call a verb's function with a configuration given as nested dictionaries."""
    parser = make_parser(function)
    return call(function, parser, parse_dict(parser, config, source))


def call(function: Callable, parser: ArgumentParser, config: Namespace, verb: str | None = None) -> Any:
    """Instantiate the resolved configuration and call `function`, with `recipe` if it takes one.

    Args:
        verb: name recorded in the recipe; that of the function if left out.
    """
    try:
        arguments = parser.instantiate(config).as_dict()
    except ValueError as error:
        if _UNION not in str(error):
            raise
        raise ConfigError(_explained(str(error), parser)) from None
    arguments.pop("config", None)
    if "recipe" in inspect.signature(function).parameters:
        arguments["recipe"] = {"verb": verb or function.__name__, **_without_secrets(as_dict(parser, config))}
    return function(**arguments)


def _without_secrets(tree: Any) -> Any:
    """The tree with user, password and signature removed from addresses."""
    if isinstance(tree, dict):
        return {key: _without_secrets(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_secrets(value) for value in tree]
    return masked(tree) if isinstance(tree, str) else tree


def _gathered(parser: ArgumentParser, argv: list[str]) -> Iterable[str]:
    """Arguments in which several values of an option of texts are one list, as jsonargparse expects."""
    texts = {
        option
        for action in parser._actions
        if getattr(action, "_typehint", None) == _TEXTS
        for option in action.option_strings
    }
    words = deque(argv)
    while words:
        yield (word := words.popleft())
        if word.startswith("--") and f"--{word[2:].replace('-', '_')}" in texts:
            values = []
            while words and not words[0].startswith("--"):
                values.append(words.popleft())
            yield from values if len(values) < 2 else [json.dumps(values)]


def _spelt_out(parser: ArgumentParser, argv: list[str]) -> Iterable[str]:
    """Arguments in the form jsonargparse expects: `--resume true`, `--min_scene`, exact class names."""
    switches = {
        option
        for action in parser._actions
        if getattr(action, "_typehint", None) is bool
        for option in action.option_strings
    }
    bases, before = _class_options(parser), ""
    for word, after in zip(argv, [*argv[1:], "--"], strict=False):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            option = f"--{option[2:].replace('-', '_')}"
            word = f"{option}{equals}{value}"
        if before in bases:
            yield class_name(bases[before], word)
        elif option in bases and equals:
            yield f"{option}={class_name(bases[option], value)}"
        else:
            yield word
        if word in switches and after.lower() not in ("true", "false"):
            yield "true"
        before = word


def _class_options(parser: ArgumentParser) -> dict[str, type]:
    """Option -> base class of the classes it takes."""
    hints = {
        option: getattr(action, "_typehint", None) for action in parser._actions for option in action.option_strings
    }
    return {option: typing.get_args(hint)[1] for option, hint in hints.items() if typing.get_origin(hint) is Callable}


def _list_classes(parser: ArgumentParser, argv: list[str]) -> None:
    """If `argv` ends in `--encoder.help`, print the classes and exit; jsonargparse would show the base class."""
    for option, base in _class_options(parser).items():
        if option.endswith(".help") and argv[-1:] == [option]:
            print(f"{', '.join(class_names(base))}; `{option} NAME` shows the arguments of one")
            parser.exit()


def _config_files(argv: list[str]) -> Iterable[str]:
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            yield argv[i + 1]
        elif word.startswith("--config="):
            yield word.removeprefix("--config=")


def _known(parser: ArgumentParser) -> set[str]:
    hidden = ("help", "print_config")
    return {action.dest for action in parser._actions if action.dest.split(".")[-1] not in hidden}


def _check_options(parser: ArgumentParser, argv: list[str]) -> None:
    known = {option for action in parser._actions for option in action.option_strings}
    for word in takewhile(lambda word: word != "--", argv):  # which ends the options
        option = word.split("=")[0]
        if re.match(r"\+*config\.\w", word):
            raise ConfigError(f"{word}: write options as --key value; see docs/how-to/from-the-reference.md")
        # jsonargparse checks the arguments of a class (`--encoder.depth`).
        of_class = any(option.startswith(f"{k}.") for k in _class_options(parser))
        if option.startswith("--") and option not in known and not of_class:
            raise ConfigError(f"unknown option {option}{nearest(option, known)}")


def _check_mappings(argv: list[str]) -> None:
    """Raises: ConfigError for a value `{A: 1, A: 2}`."""
    for before, word in zip(["", *argv], argv, strict=False):
        option, _, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if value.lstrip().startswith("{"):
            with suppress(yaml.YAMLError, RecursionError):  # jsonargparse says what is wrong
                check_duplicates(value, option)


def _check_values(parser: ArgumentParser, values: dict[str, Any], prefix: str = "") -> None:
    """Raises: ConfigError for an empty text (an unset shell variable), or a class that cannot be built."""
    for name, value in values.items():
        option = f"{prefix}{name}"
        if "" in (value if isinstance(value, list) else [value]):
            dashes = "--" * any(f"--{option}" in action.option_strings for action in parser._actions)
            raise ConfigError(f"{dashes}{option}: the value is empty (an unset shell variable?); give one")
        if isinstance(value, dict) and "class_path" in value:
            _check_class(option, value["class_path"])
        elif isinstance(value, dict):
            _check_values(parser, value, f"{option}.")


def _check_class(option: str, class_path: str) -> None:
    """Raises: ConfigError if it is only a base of other classes."""
    module, _, name = class_path.rpartition(".")
    if inspect.isabstract(kind := getattr(importlib.import_module(module), name)):
        raise ConfigError(f"{option}: {class_path} is a base class; choose one of {', '.join(class_names(kind))}")


def _explained(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's message on one line, without its type names."""
    line = " ".join(message.split())
    if match := re.search(r"Option '([\w.]+)' is not accepted.*class_path='([\w.]+)\.(\w+)'", line):
        known = inspect.signature(getattr(importlib.import_module(match[2]), match[3])).parameters
        return f"unknown key '{match[1]}' of {match[3]}{nearest(match[1], known)}"
    if match := re.search(
        rf"{_UNION}.*?Errors: - (?!Expected)(.+?) - Expected", line
    ):  # raised by our own constructors
        return match[1]
    example = f"`{parser.prog} --help` shows an example"
    if "arguments are required" in line:
        options = {action.dest for action in parser._actions if action.option_strings}
        names = [f"--{name}" if name in options else name for name in line.split("required: ")[1].split(", ")]
        or_config = "; give them here or in a file as --config" if names[0].startswith("--") else ""
        return f"missing arguments: {', '.join(names)}{or_config}; {example}"
    if match := re.fullmatch(r"argument (--[\w.]+): expected one argument", line):
        if match[1] in _class_options(parser):
            return f"{match[1]}: no value follows it or one of its arguments; `{match[1]}.help` lists the classes"
        return f"{match[1]}: no value follows; write {match[1]} VALUE"
    if match := re.fullmatch(r"unrecognized arguments: (.+)", line):
        return f"unexpected: {match[1]}; leave it out, {example}"
    line = re.sub(r"Parser key \"([\w.]+)\": (?:Problem with given class_path '[\w.]+': )?", r"\1: ", line)
    line = re.sub(r"Type [\w.]+\[.*?\] expects a function or a callable class: ", "", line)
    if match := re.search(r"^(\w+): unrecognized arguments: --([\w.]+)", line):
        option, of = f"--{match[1]}.{match[2]}", match[2].partition(".")[0]
        bases = {base for name, base in _class_options(parser).items() if name == f"--{match[1]}"}
        options = {f"--{match[1]}.{of}.{name}" for base in bases for name in fields_of(base, of)}
        return f"unknown option {option}{nearest(option, options) if options else ''}"
    if match := re.search(r"^(\w+): .*?module '([\w.]+)' has no attribute '(\w+)'", line):
        classes = [name for name, thing in vars(importlib.import_module(match[2])).items() if inspect.isclass(thing)]
        return f"{match[1]}: no class '{match[3]}' in {match[2]}{nearest(match[3], classes)}"
    line = re.sub(r"Got value: Namespace\(.*", "", line).rstrip(". ")
    return _wrong_type(line) or re.sub(r"(?:an? )?<class '([\w.]+)'>", r"\1", line)


def _wrong_type(line: str) -> str | None:
    """Our words for a value of another type than its option; None if `line` is not about that."""
    if match := re.match(r"([\w.]+(?:: [\w.]+)*): Unable to load config '(.*?)'", line):
        key = match[1].replace(": ", ".")
        return f"{key} {match[2]}: not a YAML file; write --{key}.NAME VALUE"
    if (match := _WRONG_TYPE.match(line)) is None or (match["type"] and match["type"] not in _KINDS):
        return None
    choices = ", ".join(re.findall("'(.+?)'", match["choices"] or ""))
    value = match["value"] or match["given"]
    what = match["key"].replace(": ", ".") + (f" {value}" if value else "")
    return f"{what}: must be {f'one of {choices}' if choices else _KINDS[match['type']]}"


def instantiate(kind: type, arguments: dict[str, Any], given: tuple = ()) -> Any:
    """An object of class `kind`.

    Args:
        arguments: keyword arguments as plain values, dataclasses as dictionaries.
        given: its leading arguments, passed unchanged.

    Raises:
        ConfigError: the class does not take these arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(kind, skip={len(given)} if given else None, fail_untyped=False)
        parsed = parser.instantiate(parser.parse_object(arguments)).as_dict()
    except (ArgumentError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"{kind.__name__}: {one_line(error)}") from None
    return kind(*given, **parsed)

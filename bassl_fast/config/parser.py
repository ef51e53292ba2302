"""Configuration: the signature of a verb's function is its schema; YAML and `--a.b value` fill it, by jsonargparse.

An unknown key ends in one line with the nearest name, wherever it stands: on the command line, in the YAML file, or
among the arguments of a class that the file names. On the command line a class goes by its name alone, in any spelling
(`--method bassl+shotcol`), and its arguments without `init_args` (`--method.radius 4`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from shard_tools import plugins
from shard_tools.errors import ConfigError, masked
from shard_tools.storage.untrusted import one_line

_LARGEST = 1 << 20  # bytes of a configuration
_UNION = "Does not validate against any of the Union subtypes"  # jsonargparse's words, also of errors of ours inside
_MOST_VALUES, _MOST_BRACKETS = 10_000, 100  # that a configuration, and a line of it, may hold


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's help, with the worked example on lines of its own."""


def make_parser(function: Callable, positional: bool = False, for_help: bool = False, **kwargs: Any) -> ArgumentParser:
    """Parser for the arguments of `function`, except `recipe`, which the program fills in.

    Args:
        positional: required arguments have no `--`.
        for_help: only print help: classes that options name are not imported, which would take seconds.
    """
    if for_help:
        function = _without_classes(function)
    elif any(str(hint).startswith("Callable") for hint in function.__annotations__.values()):
        plugins.load_classes()
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, formatter_class=_Help, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file; keys as of the options below.")
    parser.add_function_arguments(function, skip={"recipe"}, as_positional=positional, fail_untyped=True)
    for action in parser._actions:
        if not action.option_strings and getattr(action, "_typehint", None) == list[str]:
            action.nargs, action._typehint, action.metavar = "+", str, action.dest.rstrip("s").upper()
    return parser


def _without_classes(function: Callable) -> Callable:
    """A copy of `function` whose arguments that take a class take a text."""
    function = inspect.unwrap(function)
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__doc__, copy.__module__, copy.__qualname__ = function.__doc__, function.__module__, function.__qualname__
    hints = function.__annotations__.items()
    copy.__annotations__ = {name: "str" if str(hint).startswith("Callable") else hint for name, hint in hints}
    copy.__annotations__ = typing.get_type_hints(copy)  # resolved here, where no name is of a class any more
    return copy


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """Resolve `argv` (and the YAML files it names).

    Raises:
        ConfigError: one line that names the key, with the nearest known one.
    """
    argv = list(_spelt_out(parser, argv))
    _check_options(parser, argv)
    for path in _config_files(argv):
        _check_keys(parser, read_yaml(path), path)
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise ConfigError(_one_line(str(error), parser)) from None


def parse_dict(parser: ArgumentParser, config: dict[str, Any], source: str) -> Namespace:
    """Resolve a configuration given as nested dictionaries; `source` stands in errors."""
    _check_keys(parser, config, source)
    try:
        return parser.parse_object(config)
    except ArgumentError as error:
        raise ConfigError(f"{source}: {_one_line(str(error), parser)}") from None


def as_dict(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """The resolved configuration as plain values, to be written beside results."""
    resolved = yaml.safe_load(parser.dump(config, skip_validation=True))
    resolved.pop("config", None)
    return resolved


def run(function: Callable, config: dict[str, Any], source: str) -> Any:
    """Call a verb's function with a configuration given as nested dictionaries."""
    parser = make_parser(function)
    return call(function, parser, parse_dict(parser, config, source))


def call(function: Callable, parser: ArgumentParser, config: Namespace, verb: str | None = None) -> Any:
    """Instantiate the resolved configuration and call `function`, with the recipe if it takes one.

    Args:
        verb: name for the recipe; that of the function if left out.
    """
    try:
        arguments = parser.instantiate(config).as_dict()
    except ValueError as error:
        if _UNION not in str(error):
            raise
        raise ConfigError(_one_line(str(error), parser)) from None
    arguments.pop("config", None)
    if "recipe" in inspect.signature(function).parameters:
        arguments["recipe"] = {"verb": verb or function.__name__, **_without_secrets(as_dict(parser, config))}
    return function(**arguments)


def _without_secrets(tree: Any) -> Any:
    """What may be written beside results: addresses without user, password and signature."""
    if isinstance(tree, dict):
        return {key: _without_secrets(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_secrets(value) for value in tree]
    return masked(tree) if isinstance(tree, str) else tree


def _spelt_out(parser: ArgumentParser, argv: list[str]) -> Iterable[str]:
    """`--resume` is `--resume true`, `--min-scene` is `--min_scene`, a class goes by its name in any spelling."""
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
            yield _class_name(bases[before], word)
        elif option in bases and equals:
            yield f"{option}={_class_name(bases[option], value)}"
        else:
            yield word
        if word in switches and after.lower() not in ("true", "false"):
            yield "true"
        before = word


def _class_options(parser: ArgumentParser) -> dict[str, type]:
    """Option -> base of the classes that it takes."""
    hints = {
        option: getattr(action, "_typehint", None) for action in parser._actions for option in action.option_strings
    }
    return {option: typing.get_args(hint)[1] for option, hint in hints.items() if typing.get_origin(hint) is Callable}


def _below(base: type) -> Iterable[type]:
    """All subclasses of a class."""
    for kind in base.__subclasses__():
        yield kind
        yield from _below(kind)


def _is_abstract(kind: type) -> bool:
    return any(getattr(value, "__isabstractmethod__", False) for value in vars(kind).values())


def _class_name(base: type, word: str) -> str:
    """The class that `word` names by its letters; a class path stays as it is."""
    if "." in word:
        return word

    def letters(name: str) -> str:
        return re.sub(r"\W|_", "", name).lower()

    names = {letters(kind.__name__): kind.__name__ for kind in _below(base) if not _is_abstract(kind)}
    if letters(word) not in names:
        raise ConfigError(f"no {base.__name__.lower()} '{word}'{nearest(word, names)}")
    return names[letters(word)]


def _config_files(argv: list[str]) -> Iterable[str]:
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            yield argv[i + 1]
        elif word.startswith("--config="):
            yield word.removeprefix("--config=")


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML file as plain values.

    Raises:
        ConfigError: it cannot be read, is none, or by its aliases stands for more than anybody writes.
    """
    try:
        if Path(path).stat().st_size > _LARGEST:
            raise ConfigError(f"{path}: not YAML of a configuration (more than {_LARGEST >> 20} MiB)")
        text = Path(path).read_text(encoding="utf-8")
        # PyYAML looks at all brackets that a line has open for every one of them.
        if any(line.count("[") > _MOST_BRACKETS for line in text.splitlines()):
            raise ConfigError(f"{path}: more than {_MOST_BRACKETS} brackets in a line; write lists one entry a line")
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({one_line(error)})") from None
    if sum(1 for _ in islice(_values(content), _MOST_VALUES)) == _MOST_VALUES:
        raise ConfigError(f"{path}: holds more than {_MOST_VALUES} values; its aliases may repeat themselves")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a configuration; expected 'key: value' lines")
    return content


def _values(tree: Any) -> Iterator[Any]:
    """All values of a tree, those behind an alias each time that it stands there."""
    left = [tree]
    while left:
        yield (value := left.pop())
        if isinstance(value, dict | list):
            left += [*value.keys(), *value.values()] if isinstance(value, dict) else value


def _known(parser: ArgumentParser) -> set[str]:
    hidden = ("help", "print_config")
    return {action.dest for action in parser._actions if action.dest.split(".")[-1] not in hidden}


def _check_options(parser: ArgumentParser, argv: list[str]) -> None:
    known = {option for action in parser._actions for option in action.option_strings}
    for word in argv:
        option = word.split("=")[0]
        if re.match(r"\+*config\.\w", word):
            raise ConfigError(f"{word}: write options as --key value; see docs/how-to/from-the-reference.md")
        # What a class takes (`--encoder.depth`) is known to jsonargparse alone.
        of_class = any(option.startswith(f"{k}.") for k in _class_options(parser))
        if option.startswith("--") and option not in known and not of_class:
            raise ConfigError(f"unknown option {option}{nearest(option, known)}")


def _check_keys(parser: ArgumentParser, config: dict[str, Any], source: str, prefix: str = "") -> None:
    known = _known(parser)
    for key, value in config.items():
        path = f"{prefix}{key}"
        below = {name[len(path) + 1 :] for name in known if name.startswith(path + ".")}
        if path not in known and not below:
            siblings = {name[len(prefix) :].split(".")[0] for name in known if name.startswith(prefix)}
            raise ConfigError(f"{source}: unknown key '{path}'{nearest(str(key), siblings)}")
        if below and not isinstance(value, dict):
            raise ConfigError(f"{source}: {path}: expected keys ({', '.join(sorted(below))}), got {value!r}")
        if below:
            _check_keys(parser, value, source, path + ".")
        elif isinstance(value, dict):
            _check_class(value, source, path)


def _check_class(value: dict[str, Any], source: str, path: str) -> None:
    """Keys of a `class_path` / `init_args` pair, and of the dataclasses among the arguments."""
    for key in value:
        if key not in ("class_path", "init_args"):
            raise ConfigError(f"{source}: unknown key '{path}.{key}'{nearest(key, ('class_path', 'init_args'))}")
    class_path = str(value.get("class_path", ""))
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError):  # TypeError: a relative one
        raise ConfigError(
            f"{source}: {path}.class_path '{class_path}': no such module; write package.module.Class"
        ) from None
    if not inspect.isclass(target := getattr(module, name, None)):
        classes = [known for known, thing in vars(module).items() if inspect.isclass(thing)]
        raise ConfigError(f"{source}: {path}.class_path: no class '{name}' in {module_name}{nearest(name, classes)}")
    types = typing.get_type_hints(target.__init__)
    arguments = value.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"{source}: {path}.init_args: expected keys ({', '.join(types)}), got {arguments!r}")
    for key, argument in arguments.items():
        where = f"{path}.init_args.{key}"
        if key not in types:
            raise ConfigError(f"{source}: unknown key '{where}'{nearest(key, types)}")
        if (kind := _dataclass_in(types[key])) is None or (argument is None and kind is not types[key]):
            continue
        several = isinstance(argument, list) and typing.get_origin(types[key]) is tuple
        for number, one in enumerate(argument if several else [argument]):
            _check_fields(kind, one, source, f"{where}[{number}]" if several else where)


def _fields_of(base: type, argument: str) -> set[str]:
    """Fields of the dataclasses that classes below `base` take as `argument`."""
    hints = (typing.get_type_hints(kind.__init__).get(argument) for kind in _below(base))
    return {field.name for hint in hints if (kind := _dataclass_in(hint)) is not None for field in fields(kind)}


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that `hint` names: itself, or it or None, or a tuple of such."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if is_dataclass(kind)), None)


def _check_fields(kind: type, value: Any, source: str, where: str) -> None:
    """Keys of a dataclass among the arguments of a class."""
    known = [field.name for field in fields(kind)]
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: {where}: expected keys ({', '.join(known)}), got {value!r}")
    for key in value:
        if key not in known:
            raise ConfigError(f"{source}: unknown key '{where}.{key}'{nearest(key, known)}")


def nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"


def _one_line(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's message on one line, without the names of its types."""
    line = " ".join(message.split())
    if match := re.search(r"Option '([\w.]+)' is not accepted.*class_path='([\w.]+)\.(\w+)'", line):
        known = inspect.signature(getattr(importlib.import_module(match[2]), match[3])).parameters
        return f"unknown key '{match[1]}' of {match[3]}{nearest(match[1], known)}"
    if match := re.search(rf"{_UNION}.*?Errors: - (?!Expected)(.+?) - Expected", line):  # of our own constructors
        return match[1]
    if "arguments are required" in line:
        return f"missing arguments: {line.split('required: ')[1]}; `{parser.prog} --help` shows an example"
    line = re.sub(r"Parser key \"([\w.]+)\": ", r"\1: ", line)
    line = re.sub(r"Type [\w.]+\[.*?\] expects a function or a callable class: ", "", line)
    if match := re.search(r"^(\w+): unrecognized arguments: --([\w.]+)", line):
        option, of = f"--{match[1]}.{match[2]}", match[2].partition(".")[0]
        bases = {base for name, base in _class_options(parser).items() if name == f"--{match[1]}"}
        known = {f"--{match[1]}.{of}.{name}" for base in bases for name in _fields_of(base, of)}
        return f"unknown option {option}{nearest(option, known) if known else ''}"
    if match := re.search(r"^(\w+): .*?module '([\w.]+)' has no attribute '(\w+)'", line):
        classes = [name for name, thing in vars(importlib.import_module(match[2])).items() if inspect.isclass(thing)]
        return f"{match[1]}: no class '{match[3]}' in {match[2]}{nearest(match[3], classes)}"
    line = re.sub(
        r"Does not validate against any of the Union subtypes.*?Errors: - (Expected an? [^-]+?) - .*", r"\1", line
    )
    line = re.sub(r"(?:an? )?<class '([\w.]+)'>|a typing\.Literal", lambda match: match[1] or "one of ", line)
    return re.sub(r" Got value: Namespace\(.*|\.\.$", "", line)

"""Console command `bassl-fast`. The module of a verb is imported only when the verb is called."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shard_tools import plugins
from shard_tools.errors import BasslFastError, ConfigError, LostProcess, masked, with_fix

from .verbs import VERBS, verb_of

_HELP = {"-h", "--help"}


def usage() -> str:
    """The verbs, one per line."""
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}s}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: bassl-fast VERB ...",
            "",
            *lines,
            "",
            "`bassl-fast VERB --help` shows the options of a verb",
            "--version          the installed version",
            "--import MODULE    first import a module with plug-ins; may be repeated",
            "--debug            show tracebacks",
        ]
    )


def run(argv: list[str], modules: Sequence[str] = ()) -> None:
    """Run one verb.

    Args:
        argv: the verb and its options.
        modules: those that `--import` named.

    Raises:
        BasslFastError: anything the user can fix.
    """
    from bassl_fast import config

    name, rest = verb_of(argv), argv[1:]
    if name not in VERBS:
        raise ConfigError(f"no verb '{name}'{config.nearest(name, VERBS)}")
    plugins.import_modules(modules)
    verb = VERBS[name]
    function = getattr(importlib.import_module(verb.module), verb.function)
    warnings.filterwarnings("ignore", module="jsonargparse")
    wants_help = bool(_HELP & set(rest))  # anywhere: no option takes it as a value
    parser = config.make_parser(
        function,
        verb.positional,
        for_help=wants_help,
        prog=f"bassl-fast {name}",
        description=f"{verb.summary}.\n\nexample:\n  {verb.example}",
    )
    config.call(function, parser, config.parse(parser, ["--help"] if wants_help else rest), verb=name)


def _split_imports(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--import MODULE`, and the modules.

    Raises:
        ConfigError: an `--import` without a module.
    """
    rest, modules, words = [], [], iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--import":
            rest.append(word)
            continue
        module = value if equals else next(words, "")
        if not module or module.startswith("-"):
            raise ConfigError("--import: no module follows; write --import MODULE")
        modules.append(module)
    return rest, modules


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's warnings to developers; it reads this when imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are no text
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    try:
        argv, modules = _split_imports(argv)
        if not argv or argv[0] in _HELP:
            print(usage())
            return 0 if argv else 2
        if argv[0] == "--version":
            print(f"bassl-fast {installed_version()}")
            return 0
        run(argv, modules)
    except BasslFastError as error:
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return _fail(str(error), first=not isinstance(error, LostProcess))
    except KeyboardInterrupt:
        resumes = (verb := VERBS.get(verb_of(argv))) is not None and verb.resumes
        print(f"bassl-fast: interrupted{'; the same command resumes' if resumes else ''}", file=sys.stderr)
        return 130
    except OSError as error:  # such as a full disk or a missing permission
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return _fail(with_fix(error))
    except Exception:  # a bug; its traceback may quote an address
        print(masked(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


def installed_version() -> str:
    """Version of the installed package; "unknown" in a checkout that is not installed."""
    try:
        return version("bassl-fast")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _fail(reason: str, first: bool = True) -> int:
    """Print why the verb failed and return the exit code; torchrun reports the process that failed `first`."""
    sys.stderr.write(f"bassl-fast: {reason}\n")  # one write: other processes write to stderr too
    if first and (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        Path(path).write_text(json.dumps({"message": reason, "timestamp": int(time.time())}), encoding="utf-8")
    return 1

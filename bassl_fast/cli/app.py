"""Console command `bassl-fast`: one verb a job. A verb's module is imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from shard_tools.errors import BasslFastError, ConfigError, LostProcess, masked

from .verbs import VERBS, verb_of

_NOT_YOURS = "; choose a folder you may write to"
_FIXES = {
    errno.ENOSPC: "; make room or choose another disk, and run it again",
    errno.EDQUOT: "; make room or choose another disk, and run it again",
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EROFS: _NOT_YOURS,
    errno.ENOTDIR: "; a file stands where a folder should be, choose another",
    errno.EEXIST: "; a file stands where a folder should be, choose another",
}


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}s}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        ["usage: bassl-fast VERB ...", "", *lines, "", "`bassl-fast VERB --help` tells more; --debug shows tracebacks"]
    )


def run(argv: list[str]) -> None:
    """Run one verb.

    Raises:
        BasslFastError: whatever is the user's to mend.
    """
    from bassl_fast import config

    name, rest = verb_of(argv), argv[1:]
    if name not in VERBS:
        raise ConfigError(f"no verb '{name}'{config.nearest(name, VERBS)}")
    verb = VERBS[name]
    function = getattr(importlib.import_module(verb.module), verb.function)
    quieten()
    parser = config.make_parser(
        function,
        verb.positional,
        prog=f"bassl-fast {name}",
        description=f"{verb.summary}.\n\nexample:\n  {verb.example}",
    )
    if verb.out is not None:
        parser.set_defaults(out=verb.out)
    if {"-h", "--help"} & set(rest):
        rest = ["--help"]  # wherever it stands, it is no value of another option
    config.call(function, parser, config.parse(parser, rest))


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's warnings to developers; it looks when imported
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    try:
        run(argv)
    except BasslFastError as error:
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return _fail(str(error), first=not isinstance(error, LostProcess))
    except KeyboardInterrupt:
        hint = "; the same command goes on where it stopped" if VERBS[verb_of(argv)].goes_on else ""
        print(f"bassl-fast: interrupted{hint}", file=sys.stderr)
        return 130
    except OSError as error:
        # A full disk or a missing permission: the system's own words, and the file.
        where = f"{error.filename}: " if error.filename else ""
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return _fail(masked(f"{where}{error.strerror or error}{_FIXES.get(error.errno, '')}"))
    except Exception:  # a defect of ours; its traceback may quote an address
        print(masked(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


def _fail(reason: str, first: bool = True) -> int:
    """Say why the verb failed, and return its exit code; torchrun's last words are the reason of who failed `first`."""
    sys.stderr.write(f"bassl-fast: {reason}\n")  # at once: other processes write there too
    if first and (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        Path(path).write_text(json.dumps({"message": reason, "timestamp": int(time.time())}), encoding="utf-8")
    return 1


def quieten() -> None:
    """Keep the libraries' advice to developers off the user's terminal; after their import, which turns it on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
    warnings.filterwarnings("ignore", module="jsonargparse")

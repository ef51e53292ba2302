"""Configuration: a function's signature is the schema; YAML files and `--a.b value` fill it.

Use `make_parser`, then `parse` (a command line) or `parse_dict`, then `call`. Read `parser` first.
`described` turns a model into class path and arguments for its checkpoint, and builds it again.
Imports no other room of `bassl_fast`.
"""

from .parser import as_dict, call, make_parser, parse, parse_dict, run
from .spelling import nearest
from .yaml_file import read_yaml

__all__ = ["as_dict", "call", "make_parser", "nearest", "parse", "parse_dict", "read_yaml", "run"]

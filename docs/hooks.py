"""Pages of the site that are made of the code: the help of every verb, the configs, and the API of every package."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from textwrap import indent
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
API = {
    ".".join(folder.relative_to(ROOT).parts): folder
    for package in ("bassl_fast", "pipelines", "shard_tools")
    for folder in sorted(path.parent for path in (ROOT / package).rglob("__init__.py"))
}


def on_config(config: MkDocsConfig) -> None:
    """Give the navigation a page for each package."""
    (reference,) = [part["Reference"] for part in config.nav if "Reference" in part]
    reference[-1]["API"] = [{name: f"reference/api/{name}.md"} for name in API]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages."""
    pages = {"command-line": command_line(), "configs": configs()}
    pages |= {f"api/{name}": "\n\n".join(api(name, folder)) for name, folder in API.items()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))


def command_line() -> str:
    """`bassl-fast VERB --help` of every verb."""
    from bassl_fast import cli
    from bassl_fast.cli.verbs import VERBS

    os.environ["COLUMNS"] = "82"  # what fits the page
    text = ["# Command line", "What `bassl-fast VERB --help` prints, verb by verb."]
    for name, verb in VERBS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            if cli.main([*name.split(), "--help"]):
                raise RuntimeError(f"bassl-fast {name} --help failed")
        shown = printed.getvalue().replace(" \b", "")  # jsonargparse erases a space of the terminal
        text += [f"## {name}", f"{verb.summary[0].upper()}{verb.summary[1:]}.", f"```text\n{shown}```"]
    return "\n\n".join(text)


def configs() -> str:
    """Every config: what its comment says of it, and the file."""
    text = ["# Configs", "Each file is a complete recipe; any key can be overridden with `--key value`."]
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        body = path.read_text(encoding="utf-8")
        lines = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), body.splitlines())]
        about = " ".join(takewhile(lambda line: not line.startswith("bassl-fast "), lines))
        name = path.relative_to(ROOT / "configs")
        text += [f"## {name}", about, f'??? note "{path.name}"\n' + indent(f"```yaml\n{body}```", "    ")]
    return "\n\n".join(text)


def api(name: str, folder: Path) -> Iterator[str]:
    """What a package is for, then its modules."""
    yield f"# {name}"
    yield f"::: {name}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}"
    if name == "bassl_fast":
        yield "## Public names"
        yield "\n".join(f"* [`{public.__name__}`][{public.__module__}.{public.__name__}]" for public in public_names())
    for module in sorted(path.stem for path in folder.glob("[!_]*.py")):
        yield f"::: {name}.{module}"


def public_names() -> list[Any]:
    """What `from bassl_fast import ...` gives."""
    import bassl_fast

    return [getattr(bassl_fast, name) for name in bassl_fast.__all__ if name != "__version__"]

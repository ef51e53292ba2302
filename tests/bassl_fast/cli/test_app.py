"""The console command before and around its verbs: `--import`, `--help`, `--version`, Ctrl-C."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from bassl_fast import Encoder, Method, cli, config
from bassl_fast.cli import app, verbs
from bassl_fast.config.spelling import class_names, subclasses
from shard_tools import plugins
from tests.refused import refused


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that prints when it is imported."""
    name = f"tried_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text("print('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("spelling", [["--import", "{}"], ["--import={}"]])
def test_import_may_precede_what_is_no_verb(spelling: list[str], module: str, capsys):
    argv = [word.format(module) for word in spelling]
    assert cli.main([*argv, "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: bassl-fast VERB")
    assert cli.main([*argv, "--version"]) == 0
    assert capsys.readouterr().out == f"bassl-fast {app.installed_version()}\n"
    assert cli.main(argv) == 2
    assert capsys.readouterr().out.startswith("usage: bassl-fast VERB")


@pytest.mark.parametrize("place", [0, 1, 5])
def test_import_may_be_anywhere(place: int, module: str, tmp_path: Path, capsys):
    argv = ["draw", str(tmp_path / "films"), "--films=1", "--shots=2", "--test=0"]
    assert cli.main([*argv[:place], f"--import={module}", *argv[place:]]) == 0
    assert capsys.readouterr().out == "imported\n"
    assert plugins.imported() == (module,)


def test_an_import_is_of_one_command(module: str, tmp_path: Path):
    """Other machines are asked to import what this command named, not what an earlier one in the process did."""
    draw = ["--films=1", "--shots=2", "--test=0"]
    assert cli.main(["--import", module, "draw", str(tmp_path / "one"), *draw]) == 0
    assert cli.main(["draw", str(tmp_path / "two"), *draw]) == 0
    assert plugins.imported() == ()


@pytest.mark.parametrize("argv", [["info", "shards", "--import"], ["--import"], ["--import="], ["--import", "--help"]])
def test_import_without_a_module(argv: list[str], capsys):
    assert refused(capsys, *argv) == "bassl-fast: --import: no module follows; write --import MODULE"


def test_ctrl_c_after_an_import_says_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "stopped.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["--import", "stopped", "pack", "films", "shards"]) == 130
    assert capsys.readouterr().err == "bassl-fast: interrupted; the same command resumes\n"


@pytest.mark.parametrize("option", ["--model", "--model=X3D", "--model.help"])
def test_a_network_is_a_verb_of_its_own(option: str):
    assert verbs.verb_of(["info", option]) == "info --model"


@pytest.mark.parametrize("verb", ["plan", "demo"])
def test_help_names_no_path_of_the_installation(verb: str, capsys):
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    shown = "".join(capsys.readouterr().out.split())
    assert str(Path(cli.__file__).parents[2]) not in shown
    assert {"plan": "ifleftout,thosethatcomewithbassl-fast", "demo": "`configs/demo.yaml`"}[verb] in shown


def test_help_says_how_to_list_classes_and_imports_none():
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))\n"
    code += "from bassl_fast import cli; cli.main(['pretrain', '--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "`--method.help` lists the classes, `--method.help NAME` shows" in " ".join(shown.split())
    assert shown.splitlines()[-1] == "False"


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_option_has_a_text_and_none_points_at_code(verb: str):
    entry = verbs.VERBS[verb]
    function = getattr(importlib.import_module(entry.module), entry.function)
    _check_texts(config.make_parser(function, entry.positional, for_help=True))


@pytest.mark.parametrize("option", ["--method.help", "--encoder.help"])
def test_every_argument_of_a_class_has_a_text_and_none_points_at_code(option: str, capsys):
    base, skip = (Method, {1}) if option == "--method.help" else (Encoder, None)
    kinds = {kind.__name__: kind for kind in subclasses(base) if kind.__module__.startswith("bassl_fast.")}
    for name in kinds.keys() & set(class_names(base)):  # other tests have classes of their own
        with pytest.raises(SystemExit):
            cli.main(["pretrain", option, name])
        assert capsys.readouterr().out.startswith("usage: bassl-fast VERB")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(kinds[name], skip=skip, fail_untyped=False)
        _check_texts(parser)


def _check_texts(parser: ArgumentParser) -> None:
    for action in parser._actions:
        assert action.help, action.dest
        assert not re.search(r"see `\w+`", action.help), action.help


def test_help_shows_what_may_be_left_out(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "[--encoder ENCODER] [--method METHOD]" in shown  # a config may give them
    assert "shot encoder. Required, here or in --config." in shown
    assert "[--resume [true|false]]" in shown  # alone it means true


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["pretrain", "--encoder.help"], {"EfficientNetLite0", "ResNet", "ResNet3D", "VoV3D", "X3D"}),
        (["pretrain", "--method.help"], {"BaSSL", "BaSSLShotCoL", "BYOL", "ShotCoL"}),
        (["info", "--model.help"], {"EfficientNetLite0", "ResNet", "ResNet3D", "VoV3D", "X3D"}),
    ],
)
def test_the_classes_are_listed(argv: list[str], names: set[str], capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 0
    listed = capsys.readouterr().out.partition(";")[0].split(", ")
    assert listed == sorted(listed, key=str.lower)
    assert names <= set(listed)


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["scenes", "film.mp4", "--checkpoint", ""], "--checkpoint"),
        (["scenes", "film.mp4", "--baseline", "--out="], "--out"),
        (["scenes", "film.mp4", "", "--baseline"], "films"),
        (["pack", "", "shards"], "source"),
        (["pack", "films", ""], "destination"),
        (["pack", "films", "shards", "--annotations", ""], "--annotations"),
        (["extract", "", "shards", "features"], "pretrained"),
        (["evaluate", "best.ckpt", "features", "--notes", ""], "--notes"),
        (["finetune", "--data.features", ""], "--data.features"),
        (["demo", "--films", ""], "--films"),
        (["plan", "--costs", ""], "--costs"),
    ],
)
def test_an_empty_value_names_its_option(argv: list[str], option: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *argv)
    assert said == f"bassl-fast: {option}: the value is empty (an unset shell variable?); give one"
    assert not list(tmp_path.iterdir())

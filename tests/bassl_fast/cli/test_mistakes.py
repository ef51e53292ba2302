"""What a user gets wrong ends in one line that names the thing and the fix, and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.cli import app
from bassl_fast.cli.verbs import VERBS
from tests.bassl_fast.conftest import PRETRAIN, Project
from tests.refused import refused

pytestmark = pytest.mark.slow


@pytest.fixture
def films(project: Project, tmp_path: Path) -> Path:
    copy = tmp_path / "films"
    shutil.copytree(project.films, copy)
    return copy


def keyframe(films: Path) -> Path:
    return films / "240P_frames" / "tt9000001" / "shot_0003_img_1.jpg"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p.unlink(), "key-frame missing"),
        (lambda p: p.write_bytes(b""), "zero bytes"),
        (lambda p: p.write_bytes(p.read_bytes()[:-900]), "truncated JPEG"),
        (lambda p: p.write_bytes(b"GIF89a" + bytes(50)), "not a JPEG"),
    ],
)
def test_pack_names_the_broken_key_frame_and_leaves_no_set_behind(
    films: Path, tmp_path: Path, capsys, spoil, said: str
):
    spoil(keyframe(films))
    message = refused(capsys, "pack", films, tmp_path / "shards")
    assert said in message
    assert "shot_0003_img_1.jpg" in message
    assert not list((tmp_path / "shards").glob("*.tmp"))
    assert "manifest.json: missing" in refused(capsys, "info", tmp_path / "shards")


def test_pack_names_a_film_with_no_shots(films: Path, tmp_path: Path, capsys):
    (films / "240P_frames" / "tt_empty").mkdir()
    assert "tt_empty: a film without shots" in refused(capsys, "pack", films, tmp_path / "shards")


def test_pack_of_a_folder_in_no_layout(tmp_path: Path, capsys):
    (tmp_path / "notes.txt").write_text("hello")
    message = refused(capsys, "pack", tmp_path, tmp_path / "shards")
    assert str(tmp_path) in message
    assert "240P_frames/<film>/shot_0000_img_0.jpg" in message
    assert "no such folder" in refused(capsys, "pack", tmp_path / "absent", tmp_path / "shards")


def pretrain(project: Project, config: dict, tmp_path: Path) -> list[object]:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["pretrain", "--config", path, "--data.shards", project.shards, "--out", tmp_path / "run"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": {"lr": 1}}, "unknown key 'optimizer'; did you mean 'optimiser'?"),
        ({"training": {"epoch": 1}}, "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (
            {"method": {"class_path": "bassl_fast.methods.BaSSL", "init_args": {"mask_ratio": 0.2}}},
            "unknown key 'method.init_args.mask_ratio' of BaSSL; did you mean 'mask_rate'?",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.BaSSL", "init_args": {"views": {"sise": 32}}}},
            "unknown key 'method.init_args.views.sise'; did you mean 'size'?",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.BaSSL", "init_args": {"views": 5}}},
            "method.init_args.views: expected keys (size, area,",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.SCE", "init_args": {"second": {"bluhr": 0.1}}}},
            "unknown key 'method.init_args.second.bluhr'; did you mean 'blur'?",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.SCE", "init_args": {"small": [{"size": 96}, {"sise": 32}]}}},
            "unknown key 'method.init_args.small[1].sise'; did you mean 'size'?",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.SCE", "init_args": {"small": [96, 32]}}},
            "method.init_args.small[0]: expected keys (size, area,",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.SCE", "init_args": {"clips": {"second": 2.56}}}},
            "unknown key 'method.init_args.clips.second'; did you mean 'seconds'?",
        ),
        (
            {"encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_arg": {"depth": 18}}},
            "unknown key 'encoder.init_arg'; did you mean 'init_args'?",
        ),
        ({"data": "shards"}, "data: expected keys (global_batch,"),
        (
            {"encoder": {"class_path": "bassl_fast.encoders.ResNut"}},
            "no class 'ResNut' in bassl_fast.encoders; did you mean 'ResNet'?",
        ),
        ({"encoder": {"class_path": "bassl_fast.encoder.ResNet"}}, "'bassl_fast.encoder.ResNet': no such module"),
        ({"encoder": PRETRAIN["method"]}, "encoder: Expected 'bassl_fast.methods.BaSSL' to be a subclass of Encoder"),
        (
            {"method": {"class_path": "bassl_fast.methods.Instance", "init_args": {"run_length": 16}}},
            "unknown key 'method.init_args.run_length' of Instance; known: dim, nce_dim, nce_hidden, negatives_apart",
        ),
        (
            {"method": {"class_path": "bassl_fast.methods.SCRL"}, "training": {"smaller_views": [[112, 0.5]]}},
            "training.smaller_views: SCRL needs views of its own size; leave it out",
        ),
        ({"training": {"epochs": "ten"}}, "training.epochs ten: must be a whole number"),
    ],
)
def test_a_misspelt_key_in_the_file_names_the_nearest(project: Project, tmp_path: Path, capsys, change, said: str):
    assert said in refused(capsys, *pretrain(project, PRETRAIN | change, tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--data.shard=x", "unknown option --data.shard; did you mean '--data.shards'?"),
        ("--method.init_args.views.seize=9", "seize"),
        ("--method.views.seize=9", "unknown option --method.views.seize; did you mean '--method.views.size'?"),
        ("--method=bassl_fast.methods.BaSLL", "method: no class 'BaSLL' in bassl_fast.methods; did you mean 'BaSSL'?"),
        ("--method.mask_ratio=0.2", "unknown key 'mask_ratio' of BaSSL; did you mean 'mask_rate'?"),
        ("--method.masked_shot_modeling=false", "did you mean 'masked_shot_modelling'?"),
        ("--method=temporl", "no method 'temporl'; did you mean 'temporal'?"),
        (
            "config.LOSS.sampleing_method.name=shotcol",
            "write options as --key value; see docs/how-to/from-the-reference.md",
        ),
        ("--encoder.init_args.depth=19", "encoder depth 19: choose one of 18, 34, 50, 101"),
        ("--optimiser.lr=-1", "optimiser.lr -1.0: must be positive"),
        ("--optimiser.lr=fast", "optimiser.lr fast: must be a number"),
        ("--optimiser.name=adm", "optimiser.name adm: must be one of lars, sgd, adam, adamw"),
        ("--optimiser.drops=3", "optimiser.drops 3: must be a list"),
        ("--training.steps=1.5", "training.steps 1.5: must be a whole number"),
        ("--resume=maybe", "resume maybe: must be true or false"),
        ("--method.radius=x", "method.radius x: must be a whole number"),
        ("--method.views=5", "method.views 5: not a YAML file; write --method.views.NAME VALUE"),
        (
            "--out=/proc/run",
            "/proc/run: cannot be written (No such file or directory); choose a folder you may write to",
        ),
        ("--data.split=holdout", "no film in split 'holdout'; there are test, train, val"),
        ("--data.global_batch=0", "global_batch 0: must be at least 1"),
        ("--training.steps=-1", "training.steps -1: must be at least 0"),
        ("--training.epochs=0", "training.epochs 0: must be at least 1"),
        ("--method.run_length=3", "data.global_batch 8: must be a multiple of method.run_length 3; take 9"),
        ("--training.smaller_views=[[32, 0.5]]", "of 32 pixels: must be below method.views.size 32"),
        ("--training.smaller_views=[[16, 0.5], [24, 0.5]]", "with rising fractions of all steps within (0, 1)"),
        ("--data.global_batch=1000", "data.global_batch 1000: there are 60 samples; choose at most 60"),
        ("--seed=-1", "seed -1: must be within [0, 2^32)"),
        ("--method.init_args.radius=0", "method.radius 0: must be at least 1"),
        ("--data.shards=nowhere", "nowhere: no such folder"),
    ],
)
def test_a_wrong_option_is_refused_before_the_first_step(project: Project, tmp_path: Path, capsys, option, said: str):
    assert said in refused(capsys, *pretrain(project, PRETRAIN, tmp_path), option)
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_all_losses_off_is_refused(project: Project, tmp_path: Path, capsys):
    switches = (
        "shot_scene_matching",
        "contextual_group_matching",
        "pseudo_boundary_prediction",
        "masked_shot_modelling",
    )
    off = [f"--method.init_args.{switch}=false" for switch in switches]
    assert "all four losses are off" in refused(capsys, *pretrain(project, PRETRAIN, tmp_path), *off)


def test_ctrl_c_says_how_to_go_on(project: Project, tmp_path: Path, warm: str):
    argv = [*map(str, pretrain(project, PRETRAIN, tmp_path)), "--training.steps=500", "--training.checkpoint_steps=1"]
    running = subprocess.Popen([warm, "-m", "bassl_fast.cli", *argv], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (tmp_path / "run" / "last.ckpt").exists():
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "interrupted at step" in said
    assert "continue with --resume" in said
    assert "Traceback" not in said


def test_ctrl_c_on_a_verb_that_keeps_what_is_finished(project: Project, tmp_path: Path, warm: str):
    features = tmp_path / "features"
    argv = [warm, "-m", "bassl_fast.cli", "extract", project.pretrained, project.shards, str(features)]
    running = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    while not list(features.glob("tt*.npy")):
        assert running.poll() is None
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (130, "bassl-fast: interrupted; the same command resumes\n")
    assert cli.main(argv[3:]) == 0


def test_missing_arguments_point_to_an_example(capsys):
    said = refused(capsys, "pack")
    assert said == "bassl-fast: missing arguments: source, destination; `bassl-fast pack --help` shows an example"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["pretrain"],
            "missing arguments: --data.shards, --encoder, --method; give them here or in a file as --config;",
        ),
        (["pretrain", "--seed"], "--seed: no value follows; write --seed VALUE"),
        (["info", "--model"], "--model: no value follows it or one of its arguments; `--model.help` lists the classes"),
        (["pack", "films", "shards", "more"], "unexpected: more; leave it out, `bassl-fast pack --help` shows"),
        (["download", "--files", "[{url: 3}]"], "files.url 3: must be text"),
    ],
)
def test_a_command_that_is_not_complete(argv: list[str], said: str, capsys):
    assert f"bassl-fast: {said}" in refused(capsys, *argv)


@pytest.mark.parametrize("verb", ["pack", "demo", "scenes", "finetune"])
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("a-file", "a-file: Not a directory; a file is in the place of a folder"),
        ("/proc/out", "/proc/out: cannot be written (No such file or directory); choose a folder you may write to"),
    ],
)
def test_where_nothing_can_be_written_is_refused_before_the_work(
    verb: str, out: str, said: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("text")
    out = f"{out}/below" if verb == "demo" else out  # an `out` that exists has its own message
    argv = {
        "pack": ["pack", project.films, out],
        "demo": ["demo", "--out", out],
        "scenes": ["scenes", "a-file", "--baseline", "--out", out],
        "finetune": ["finetune", "--data.features", project.features, "--out", out],
    }[verb]
    assert said.replace("/proc/out", out) in refused(capsys, *argv)
    assert Path("a-file").read_text() == "text"
    assert [path.name for path in Path().iterdir()] == ["a-file"]


def test_a_file_that_is_not_a_film_is_refused_before_a_model_is_named(tmp_path: Path, capsys):
    (tmp_path / "text.mp4").write_text("text")
    assert cli.main(["scenes", str(tmp_path / "text.mp4"), "--baseline", "--out", str(tmp_path / "scenes")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "text.mp4: not a video" in said.err


def test_a_missing_or_empty_folder_is_called_so(tmp_path: Path, capsys):
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    argv = ["finetune", "--data.features", missing, "--out", tmp_path / "run"]
    assert f"{missing}: no such folder; give the one that `bassl-fast extract` wrote" in refused(capsys, *argv)
    argv = ["import-features", missing, tmp_path, tmp_path / "features"]
    assert f"{missing}: no such folder; give the folder of <film>/shot_0000.npy" in refused(capsys, *argv)
    assert f"{empty}: an empty folder; give a folder of" in refused(capsys, "pack", empty, tmp_path / "shards")
    assert "--test 4 and --val 0 leave no film to train on of --films 3; draw more, or hold out fewer" in refused(
        capsys, "draw", tmp_path / "films", "--films", "3"
    )


def test_an_unknown_verb_names_the_nearest(capsys):
    assert "no verb 'pretain'; did you mean 'pretrain'?" in refused(capsys, "pretain")


def test_a_finished_run_is_not_written_over(project: Project, capsys):
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", project.run]
    assert "this run exists" in refused(capsys, *argv)
    assert "already holds a finished set" in refused(capsys, "pack", project.films, project.shards)
    assert "this run exists" in refused(
        capsys, "finetune", "--data.features", project.features, "--out", project.scenes
    )


def test_resume_with_another_recipe_is_refused(project: Project, tmp_path: Path, capsys):
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", project.run]
    assert "trained with another optimiser" in refused(capsys, *argv, "--resume", "true", "--optimiser.lr", "0.5")
    others = tmp_path / "shards"
    assert (
        cli.main(["draw", str(tmp_path / "films"), "--films", "1", "--shots", "60", "--test", "0", "--seed", "1"]) == 0
    )
    assert cli.main(["pack", str(tmp_path / "films"), str(others)]) == 0
    argv = ["pretrain", "--config", project.config, "--data.shards", others, "--out", project.run, "--resume", "true"]
    assert f"was trained on other shards than {others}" in refused(capsys, *argv)


def test_checkpoints_of_another_kind_or_recipe(project: Project, tmp_path: Path, capsys):
    features = tmp_path / "features"
    said = refused(capsys, "extract", project.finetuned, project.shards, features)
    assert (
        "a checkpoint of `bassl-fast finetune`; this needs one of `bassl-fast pretrain` or `bassl-fast train`" in said
    )
    assert "no such checkpoint" in refused(capsys, "extract", tmp_path / "none.ckpt", project.shards, features)

    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(Path(project.pretrained).read_bytes()[:-1000])
    assert "cannot be read as a checkpoint" in refused(capsys, "extract", cut, project.shards, features)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    assert "not a checkpoint of bassl-fast" in refused(capsys, "extract", foreign, project.shards, features)

    state = torch.load(project.pretrained, weights_only=True)
    state["model"]["encoder"]["init_args"]["depth"] = 34
    other = tmp_path / "other.ckpt"
    torch.save(state, other)
    assert "the checkpoint is of another recipe" in refused(capsys, "extract", other, project.shards, features)
    assert not features.exists()


def test_the_checkpoint_of_a_stopped_run_is_not_taken_for_whole(project: Project, tmp_path: Path, capsys):
    state = torch.load(project.pretrained, weights_only=True)
    state["global_step"] = 1
    stopped = tmp_path / "stopped.ckpt"
    torch.save(state, stopped)
    message = refused(capsys, "extract", stopped, project.shards, tmp_path / "features")
    assert "stopped at step 1 of 2; finish it with the same command and --resume" in message


def test_one_video_has_no_join_to_find(tmp_path: Path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "film.mp4").write_bytes(b"")
    message = refused(capsys, "demo", "--films", tmp_path / "videos", "--out", tmp_path / "demo")
    assert "one video has no join to find" in message
    assert not (tmp_path / "demo").exists()


def test_features_of_another_checkpoint(project: Project, tmp_path: Path, capsys):
    state = torch.load(project.pretrained, weights_only=True)
    state["state_dict"]["encoder.bn1.weight"] += 1
    other = tmp_path / "other.ckpt"
    torch.save(state, other)
    argv = ["finetune", "--data.features", project.features, "--out", tmp_path / "scenes"]
    assert "extracted with another checkpoint" in refused(capsys, *argv, "--pretrained", other)
    assert "holds features of another checkpoint" in refused(capsys, "extract", other, project.shards, project.features)
    assert cli.main(["extract", str(other), project.shards, str(tmp_path / "features")]) == 0
    assert "features of another pretraining checkpoint" in refused(
        capsys, "evaluate", project.finetuned, tmp_path / "features"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "epochs 0: must be at least 1"),
        (["--new_crn", "true"], "new_crn: without --pretrained the network is new anyway"),
        (["--data.batch", "1000"], "data.batch 1000: there are 20 labelled shots"),
    ],
)
def test_fine_tuning_that_cannot_work_is_refused(project: Project, tmp_path: Path, capsys, options, said: str):
    assert said in refused(capsys, "finetune", "--data.features", project.features, "--out", tmp_path / "s", *options)


def test_arrays_that_nothing_vouches_for_are_not_taken_for_features(project: Project, tmp_path: Path, capsys):
    shutil.copytree(project.features, tmp_path / "features")
    (tmp_path / "features" / "features.json").unlink()
    argv = ["extract", project.pretrained, project.shards, tmp_path / "features"]
    assert "holds files of an unknown checkpoint" in refused(capsys, *argv)
    (tmp_path / "features" / "features.json").write_text("{")
    assert "features.json: damaged" in refused(capsys, *argv)


def test_a_checkpoint_does_not_make_us_import_strangers(project: Project, tmp_path: Path, capsys):
    (tmp_path / "stranger.py").write_text("raise SystemExit('ran')")
    state = torch.load(project.pretrained, weights_only=True)
    state["model"]["encoder"]["class_path"] = "stranger.Encoder"
    torch.save(state, tmp_path / "stranger.ckpt")
    said = refused(capsys, "extract", tmp_path / "stranger.ckpt", project.shards, tmp_path / "features")
    assert "if you trust it, name its module: --import stranger" in said


@pytest.mark.parametrize(
    ("class_path", "arguments"),
    [
        ("subprocess.Popen", {"args": ["touch", "MARK"]}),
        ("bassl_fast.runtime.run_folder.RunFolder", {"out": "MARK"}),
        ("pathlib.Path.touch", {}),
        ("bassl_fast.methods.BaSSL", {}),
        ("bassl_fast.encoders.x/../../stranger.Encoder", {}),
        (
            "bassl_fast.encoders.ResNet",
            {"depth": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "MARK"]}}},
        ),
    ],
)
def test_a_checkpoint_builds_nothing_but_models(
    project: Project, tmp_path: Path, capsys, class_path: str, arguments: dict
):
    mark = tmp_path / "mark"
    state = torch.load(project.pretrained, weights_only=True)
    section = json.loads(json.dumps({"class_path": class_path, "init_args": arguments}).replace("MARK", str(mark)))
    state["model"]["encoder"] = section
    torch.save(state, tmp_path / "evil.ckpt")
    said = refused(capsys, "extract", tmp_path / "evil.ckpt", project.shards, tmp_path / "features")
    assert "evil.ckpt: " in said
    assert not mark.exists()


def test_a_config_that_is_none(project: Project, tmp_path: Path, capsys):
    assert "last.ckpt: not YAML" in refused(capsys, "pretrain", "--config", project.pretrained)
    config = PRETRAIN | {"encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": 5}}
    assert "encoder.init_args: expected keys (depth, width" in refused(capsys, *pretrain(project, config, tmp_path))
    recipe = tmp_path / "demo.yaml"
    for text, message in (
        ("draw: {}", "add or remove finetune, pretrain, seeds"),
        ("{draw: {shot: 3}, pretrain: {}, finetune: {}, seeds: [0]}", "unknown key 'shot'; did you mean 'shots'?"),
    ):
        recipe.write_text(text)
        assert message in refused(capsys, "demo", "--recipe_file", recipe, "--out", tmp_path / "demo")


def test_options_of_videos_are_refused_for_key_frames(project: Project, tmp_path: Path, capsys):
    said = refused(capsys, "pack", project.films, tmp_path / "s", "--split", "val")
    assert "--split is for films from videos, and" in said


def test_unfinished_features(project: Project, tmp_path: Path, capsys):
    shutil.copytree(project.features, tmp_path / "features")
    (tmp_path / "features" / "features.json").unlink()
    argv = ["finetune", "--data.features", tmp_path / "features", "--out", tmp_path / "scenes"]
    assert "these features are unfinished" in refused(capsys, *argv)
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_with_an_example(verb: str, capsys):
    with pytest.raises(SystemExit) as stop:
        app.run([*verb.split(), "--help"])
    assert stop.value.code == 0
    assert VERBS[verb].example.split("--")[0].strip() in " ".join(capsys.readouterr().out.split())


def test_without_dali_one_line_says_what_to_install(project: Project, tmp_path: Path):
    code = (
        "import sys; sys.modules['nvidia.dali'] = None; from bassl_fast.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = ["extract", project.pretrained, project.shards, str(tmp_path / "features")]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "NVIDIA DALI is not installed" in done.stderr
    assert "bassl-fast[cuda130]" in done.stderr

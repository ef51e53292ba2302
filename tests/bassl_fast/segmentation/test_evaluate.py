"""`evaluate --protocol`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bassl_fast import cli
from tests.bassl_fast.conftest import Project
from tests.refused import refused

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two annotators of the test film of 20 shots."""
    root = tmp_path_factory.mktemp("annotations")
    for number, starts in enumerate(("0,5,10,20", "0,10,20")):
        folder = root / "scenes" / f"annotator_{number}"
        folder.mkdir(parents=True)
        (folder / "tt9000002.txt").write_text(starts)
    (root / "shots").mkdir()
    (root / "shots" / "tt9000002.txt").write_text("".join(f"{25 * i} {25 * i + 24}\n" for i in range(20)))
    return root


def test_every_protocol_writes_its_scores(project: Project, annotations: Path, tmp_path: Path, capsys):
    command = ["evaluate", project.finetuned, project.features, "--out", str(tmp_path), "--pages", "0"]
    expected = {
        ("ovsd",): {"coverage", "overflow", "f_co", "miou"},
        ("tolerance", "--tolerance", "0.5s"): {"ap_near"},
        ("bbc_annotators", "--annotations", str(annotations)): {"coverage", "mean_ap", "annotators"},
    }
    for protocol, names in expected.items():
        assert cli.main([*command, "--protocol", *protocol]) == 0
        found = json.loads((tmp_path / "metrics.json").read_text())
        assert found["protocol"] == protocol[0]
        assert names <= found.keys()
    each = found["annotators"]
    assert list(each) == ["annotator_0", "annotator_1"]
    assert found["ap"] == pytest.approx(sum(one["ap"] for one in each.values()) / 2)
    assert f"{found['ap']:6.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--protocol", "tolerance", "--tolerance", "3"], "tolerance 3: give seconds or frames"),
        (["--protocol", "bbc_annotators"], "needs --annotations DIR"),
        (["--annotations", "x"], "only for protocol bbc_annotators, not movienet"),
        (["--protocol", "bbc", "--reference_quirks", "true"], "only for protocol movienet, not bbc"),
        (["--protocol", "bbc2"], "bbc2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(capsys, options: list[str], says: str):
    assert says in refused(capsys, "evaluate", "none.ckpt", "none", *options)

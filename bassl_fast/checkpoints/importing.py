"""Checkpoints and weights of other programs -> a checkpoint of bassl-fast.

Accepts released checkpoints of BaSSL's reference, SCRL, SCE, X3D and VoV3D, and ImageNet weights. The names and shapes
of the tensors tell which it is. Such files are untrusted, see `foreign`.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bassl_fast.encoders import X3D, ClipEncoder, ResNet, ResNet3D, VoV3D
from bassl_fast.runtime.run_folder import RunFolder, folder_of
from shard_tools.errors import CheckpointError, masked
from shard_tools.storage.remote import absolute
from shard_tools.storage.untrusted import TarHeader, one_line, parse_json, tar_members

from . import checkpoint, released
from .exporting import SAFETENSORS
from .foreign import of_encoder, read_foreign, unwrapped
from .migrate import migrated
from .model import from_state, full_section, new_model, section_of
from .reference import METHODS, rename
from .weights import without_memory

CONFIG = "config.json"
MODELS = ("model-v1.ckpt", "model.ckpt")  # the first that exists; the reference uses only the first
_LARGEST = 32 << 30  # bytes an archive may unpack to


def import_weights(source: str, out: str, method: str | None) -> str:
    """See `exchange.import_checkpoint`."""
    folder, name = RunFolder(folder_of(out)), out.rsplit("/", 1)[-1]
    if folder.has(name):
        raise CheckpointError(f"{out}: exists; delete it or choose another path")
    with TemporaryDirectory(prefix="bassl-fast-") as scratch:
        path, config_file = _find(source, Path(scratch))
        content = _content(path, source)
        if (renamed := released.renamed(content)) is not None:
            state, what = _released(renamed, source)
        elif "conv1.weight" in (weights := of_encoder(_weights(content, source))):
            state, what = _imagenet(weights, source)
        else:
            state, what = _reference(weights, method or _method_of(config_file), source)
        imported = {"file": masked(absolute(source)), "sha256": checkpoint.sha256(path)}
    state["recipe"] = {"verb": "import-checkpoint", "source": imported["file"], "method": method}
    state["imported"] = imported
    _check_finite(state["state_dict"], source)
    from_state(state, source)
    checkpoint.save(folder.path / name, state)
    folder.publish()
    print(f"checkpoint: {masked(str(out))} ({what})", flush=True)
    return out


def _find(source: str, scratch: Path) -> tuple[Path, Path]:
    """The file of the weights, and where its config.json would be."""
    found = checkpoint.find(source)
    if found is None and not Path(source).is_dir():
        raise CheckpointError(f"{source}: no such file or folder; give a released checkpoint or ImageNet weights")
    if found is not None:
        if not (source.endswith((".tar.gz", ".tgz")) or tarfile.is_tarfile(found)):
            return found, checkpoint.find(f"{folder_of(source)}/{CONFIG}") or scratch / CONFIG
        _unpack(found, scratch)
        folder = scratch
    else:
        folder = Path(source)
    for name in MODELS:
        if (folder / name).is_file():
            return folder / name, folder / CONFIG
    raise CheckpointError(f"{source}: holds neither {' nor '.join(MODELS)}; give the folder or archive of one model")


def _unpack(archive: Path, scratch: Path) -> None:
    """Extract only the model and its config.json from an archive."""
    unpacked = 0
    try:
        with tarfile.open(archive, tarinfo=TarHeader) as tar:
            for member in tar_members(tar):
                unpacked += member.size
                if unpacked > _LARGEST or (PurePosixPath(member.name).name == CONFIG and member.size > 1 << 20):
                    raise CheckpointError(
                        f"{archive}: unpacks to more than any model takes ({member.name!r}); do not use this file"
                    )
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or not (member.isreg() or member.isdir()):
                    raise CheckpointError(
                        f"{archive}: member {member.name!r} is a link or outside the folder; do not use this file"
                    )
                if member.issparse():  # a hole takes no space in the archive
                    raise CheckpointError(f"{archive}: member {member.name!r} has holes; do not use this file")
                if member.isreg() and name.name in (CONFIG, *MODELS):
                    if (scratch / name.name).exists():
                        raise CheckpointError(f"{archive}: holds {name.name} twice; unpack it and give one folder")
                    packed: Any = tar.extractfile(member)
                    with packed, open(scratch / name.name, "wb") as file:
                        shutil.copyfileobj(packed, file)
    except CheckpointError:
        raise
    except Exception as error:  # tarfile and the decompressors raise many types
        if isinstance(error, OSError) and error.errno:  # this machine's disk
            raise
        raise CheckpointError(f"{archive}: truncated or damaged ({one_line(error)}); download it again") from None


def _method_of(config_file: Path) -> str | None:
    """The method that the reference's config.json names; None without a config.json."""
    if not config_file.is_file():
        return None
    try:
        name = parse_json(config_file.read_text(encoding="utf-8"))["LOSS"]["sampling_method"]["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{config_file.name}: LOSS.sampling_method.name is missing ({error!r}); give --method"
        ) from None
    if not isinstance(name, str) or name not in METHODS:
        raise CheckpointError(f"{config_file.name}: unknown method {name!r}; give --method: {', '.join(METHODS)}")
    return name


def _content(path: Path, source: str) -> dict[str, Any]:
    """Content of a file by name: tensors, or dictionaries of tensors."""
    if path.suffix == SAFETENSORS:
        try:
            state = safetensors.torch.load_file(path)
        except Exception as error:  # safetensors raises its own type and others
            raise CheckpointError(
                f"{source}: cannot be read as safetensors ({one_line(error)}); download it again"
            ) from None
    else:
        state = read_foreign(path)
    if migrated(state, source) is not None:
        raise CheckpointError(f"{source}: already a checkpoint of bassl-fast; use it as it is")
    return unwrapped(state) if isinstance(state, dict) else {}


def _weights(content: dict[str, Any], source: str) -> dict[str, Tensor]:
    """Raises: CheckpointError if there is anything besides tensors by name."""
    if not content or not all(isinstance(k, str) and isinstance(w, Tensor) for k, w in content.items()):
        raise CheckpointError(f"{source}: holds no named weights; give a released checkpoint or ImageNet weights")
    return content


def _check_finite(weights: dict[str, Tensor], source: str) -> None:
    """Raises: CheckpointError if a weight is NaN or infinite."""
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise CheckpointError(
                f"{source}: {name} holds NaN or infinite values, so its training had failed; take an earlier checkpoint"
            )


def _imagenet(weights: dict[str, Tensor], source: str) -> tuple[dict[str, Any], str]:
    """State of a checkpoint of only an encoder, and its name."""
    state = {f"encoder.{name}": value for name, value in weights.items() if not name.startswith("fc.")}
    encoder = _encoder(state, source)
    section = full_section(encoder, None, source)
    return {"model": section, "state_dict": state}, f"ResNet-{encoder['init_args']['depth']}"


def _reference(weights: dict[str, Tensor], name: str | None, source: str) -> tuple[dict[str, Any], str]:
    """State of a pretraining checkpoint, with sizes read from the shapes of the tensors, and its name.

    The number of attention heads is not in the shapes; it is 8 in every released model.
    """
    try:
        state = {ours: value for key, value in weights.items() if (ours := rename(key)) is not None}
    except KeyError as error:
        raise CheckpointError(
            f"{source}: {error.args[0]} is not a weight of the reference's models or of a ResNet; "
            "give a released checkpoint of BaSSL or weights under torchvision's names"
        ) from None
    encoder = _encoder(state, source)
    contextual = "method.crn.project.weight" in state
    if name is None and not contextual:
        raise CheckpointError(
            f"{source}: the weights do not tell which shot-level method trained them, and there is no "
            f"{CONFIG}; give --method instance, temporal or shotcol"
        )
    name = name or "bassl"
    if contextual != name.startswith("bassl"):
        has = "a" if contextual else "no"
        raise CheckpointError(f"{source}: has {has} contextual relation network, so it is not of {name}; fix --method")
    if "method.head_nce.2.weight" not in state:
        raise CheckpointError(f"{source}: has no NCE head, which every method has; download it again")
    nce_dim, nce_hidden = state["method.head_nce.2.weight"].shape
    sizes = {"nce_hidden": nce_hidden, "nce_dim": nce_dim}
    if contextual:
        sizes |= {
            "hidden": len(state["method.crn.project.weight"]),
            "intermediate": len(state.get("method.crn.layers.0.up.weight", ())),
            "layers": sum(key.endswith(".up.weight") for key in state),
            "radius": len(state.get("method.crn.position.weight", ())) // 2 - 1,
            "contextual_group_matching": "method.head_cgm.weight" in state,
            "pseudo_boundary_prediction": "method.head_pp.weight" in state,
            "masked_shot_modelling": "method.head_msm.0.weight" in state,
        }
    section = full_section(encoder, {"class_path": METHODS[name], "init_args": sizes}, source)
    return {"model": section, "state_dict": state}, f"{name} of the reference"


def _released(state: dict[str, Tensor], source: str) -> tuple[dict[str, Any], str]:
    """State of a checkpoint of SCRL, SCE, X3D or VoV3D (only the encoder if the method is incomplete), and its name."""
    encoder, method = _encoder(state, source), released.method_of(state)
    name = "-".join(map(str, [encoder["class_path"].rpartition(".")[2], next(iter(encoder["init_args"].values()))]))
    weights = {key: value for key, value in state.items() if key.startswith("encoder.")}
    alone = {"model": full_section(encoder, None, source), "state_dict": weights}
    if method is None:
        return alone, f"{name} only; the file has no method"
    if encoder["class_path"].rpartition(".")[2] != "ResNet":
        method["init_args"] |= _of_clips(encoder, method["init_args"].get("classes"))
    with without_memory():
        network, task = new_model(encoder, method, source)
    section = section_of(network, task)
    expected = [f"method.{key}" for key in task.state_dict()]  # type: ignore[union-attr]
    kind = method["class_path"].rpartition(".")[2]
    if missing := [key for key in expected if key not in state]:
        more = f" and {len(missing) - 3} more" * (len(missing) > 3)
        return alone, f"{name} only; {kind} lacks {', '.join(missing[:3])}{more}"
    return {"model": section, "state_dict": weights | {key: state[key] for key in expected}}, f"{kind} on {name}"


def _of_clips(encoder: dict[str, Any], classes: int | None) -> dict[str, Any]:
    """Arguments of a method on clips that the shapes do not tell.

    As published for Kinetics or, if there are 174 classes, for Something-Something.
    """
    views = {"mean": list(ClipEncoder.mean), "std": list(ClipEncoder.std)}
    if encoder["class_path"].endswith("ResNet3D"):
        return {"clips": {"frames": 8, "seconds": 2.56}, "views": views}
    return {"clips": {"frames": 16} | ({"segments": True} if classes == 174 else {"stride": 5}), "views": views}


def _encoder(state: dict[str, Tensor], source: str) -> dict[str, Any]:
    """Description of the encoder in `state`; adds the batch counters of BN, which old files lack, to `state`."""
    for name in [name for name in state if name.startswith("encoder.") and name.endswith("running_mean")]:
        state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    found = {name.removeprefix("encoder."): value.shape for name, value in state.items() if name.startswith("encoder.")}
    width = next(iter(found.get("conv1.weight", ())), 1) or 1
    candidates: list[tuple[Any, dict[str, Any]]] = [
        *((ResNet, {"depth": depth, "width": width}) for depth in (18, 34, 50, 101)),
        *((ResNet3D, {"depth": depth}) for depth in (18, 50)),
        *((X3D, {"size": size}) for size in ("M", "L")),
        *((VoV3D, {"size": size}) for size in ("M", "M-2020", "L")),
    ]
    shapes = {}
    for kind, arguments in candidates:
        with without_memory():
            expected = {name: value.shape for name, value in kind(**arguments).state_dict().items()}
        if found == expected:
            return {"class_path": f"bassl_fast.encoders.{kind.__name__}", "init_args": arguments}
        shapes[f"{kind.__name__}-{next(iter(arguments.values()))}"] = expected
    nearest = min(shapes, key=lambda name: len(set(shapes[name].items()) ^ set(found.items())))
    raise CheckpointError(
        f"{source}: its encoder is not one of {', '.join(shapes)}; only these can be imported "
        f"(nearest is {nearest}: {_difference(found, shapes[nearest])})"
    )


def _difference(found: dict[str, torch.Size], expected: dict[str, torch.Size]) -> str:
    """How named shapes differ from those of an encoder, in words."""
    for what, ours, theirs in (("missing", expected, found), ("not part of it", found, expected)):
        if names := [name for name in ours if name not in theirs]:
            return f"{what}: {', '.join(names[:3])}" + f" and {len(names) - 3} more" * (len(names) > 3)
    name = next(name for name in expected if found[name] != expected[name])
    return f"{name} has shape {list(expected[name])}, here {list(found[name])}"

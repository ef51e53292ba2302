"""`bassl-fast import-checkpoint` and `export-checkpoint`: weights from and for other programs."""

from __future__ import annotations

from typing import Literal

from shard_tools.errors import CheckpointError


def import_checkpoint(
    source: str,
    out: str,
    method: Literal["instance", "temporal", "shotcol", "bassl", "bassl+shotcol"] | None = None,
) -> str:
    """Convert a released checkpoint of BaSSL, SCRL, SCE, X3D or VoV3D, or ImageNet weights.

    If weights of the method are missing, only the encoder is kept, and the missing weights are printed.

    Args:
        source: folder or .tar.gz released by BaSSL, with config.json and model-v1.ckpt or model.ckpt; a single released
            checkpoint (.ckpt, .pth, .pyth); or ResNet weights under torchvision's names (.pth, .safetensors), also
            after `module.`, `backbone.` or `encoder_q.`. Files may be at an address.
        out: file or address (s3://, gs://) to write.
        method: method that trained the weights, if there is no config.json.

    Raises:
        CheckpointError: it cannot be read, holds other objects than weights, or has another architecture.
    """
    from .importing import import_weights  # here, so that `--help` does not wait for torch

    return import_weights(source, out, method)


def export_checkpoint(
    source: str,
    out: str,
    names: Literal["ours", "reference"] = "ours",
    format: Literal["safetensors", "onnx"] = "safetensors",
) -> str:
    """Write the weights of a checkpoint as safetensors, or its network as ONNX, with the description of its model.

    ONNX holds the encoder of a checkpoint of `pretrain`, `train` or `import-checkpoint`, which takes normalised images,
    or the boundary model of `finetune --head crn`, which takes windows of shot features. Other heads compare all shots
    of a film, and are refused. The number of images or windows, and the length of clips, are free.

    Args:
        source: checkpoint of `bassl-fast pretrain`, `train`, `finetune` or `import-checkpoint`.
        out: file or address to write, named .safetensors or .onnx.
        names: names of the tensors in safetensors; "reference" only for pretraining checkpoints.
        format: "safetensors", or "onnx", which needs the extra `onnx`.

    Raises:
        CheckpointError: it cannot be read, has weights that the reference has no name for, or cannot be exported.
        MissingDependency: the package of a format is not installed.
    """
    # Imported here, so that `--help` does not wait for torch.
    if format == "onnx":
        from .onnx_export import export_onnx

        if names != "ours":
            raise CheckpointError(f"--names {names}: only for safetensors; leave it out")
        return export_onnx(source, out)
    from .exporting import export_weights

    return export_weights(source, out, names)

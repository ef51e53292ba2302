"""`bassl-fast import-checkpoint` and `export-checkpoint`: weights from and for other programs."""

from __future__ import annotations

from typing import Literal


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


def export_checkpoint(source: str, out: str, names: Literal["ours", "reference"] = "ours") -> str:
    """Write the weights of a checkpoint as safetensors, with the description of its model in the metadata.

    Args:
        source: checkpoint of `bassl-fast pretrain`, `train`, `finetune` or `import-checkpoint`.
        out: file or address to write, named .safetensors.
        names: names of the tensors; "reference" only for pretraining checkpoints.

    Raises:
        CheckpointError: it cannot be read, or has weights that the reference has no name for.
    """
    from .exporting import export_weights  # here, so that `--help` does not wait for torch

    return export_weights(source, out, names)

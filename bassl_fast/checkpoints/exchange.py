"""`bassl-fast import-checkpoint` and `export-checkpoint`: weights from elsewhere, and for elsewhere."""

from __future__ import annotations

from typing import Literal


def import_checkpoint(
    source: str,
    out: str,
    method: Literal["instance", "temporal", "shotcol", "bassl", "bassl+shotcol"] | None = None,
) -> str:
    """Convert a released checkpoint of BaSSL, SCRL, SCE, X3D or VoV3D, or ImageNet weights.

    If parts of a method are missing, only its encoder is kept, and the line that is printed names what was missing.

    Args:
        source: released folder or .tar.gz of BaSSL with config.json and model-v1.ckpt or model.ckpt; any released
            checkpoint alone (.ckpt, .pth, .pyth); or weights of a ResNet in torchvision's names, .pth or .safetensors.
            Files may be behind an address.
        out: file or address (s3://, gs://) to write.
        method: method that the weights were trained by, if there is no config.json.

    Raises:
        CheckpointError: it cannot be read, holds more than weights, or is of another architecture.
    """
    from .importing import import_weights  # torch: seconds that `--help` need not wait

    return import_weights(source, out, method)


def export_checkpoint(source: str, out: str, names: Literal["ours", "reference"] = "ours") -> str:
    """Write the weights of a checkpoint as safetensors, with the description of its model in the metadata.

    Args:
        source: checkpoint of `bassl-fast pretrain`, `train`, `finetune` or `import-checkpoint`.
        out: file or address to write, named .safetensors.
        names: names of the tensors; "reference" is for pretraining checkpoints.

    Raises:
        CheckpointError: it cannot be read, or has weights that the reference has no name for.
    """
    from .exporting import export_weights  # torch: seconds that `--help` need not wait

    return export_weights(source, out, names)

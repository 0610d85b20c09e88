"""JPEG decoded while training: clray's threads beside a plain DataLoader with as many processes.

    python scripts/benchmarks/decoding.py --images 5000 --decoders 2 --sizes 64 128 224

Each repeat runs both, one after the other, over the same files; the figures are medians. Memory is what the process and
its children hold at most, of their own (PSS where the system tells it).
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clray.config.sections import DataConfig, EncoderConfig
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.model.encoder import build_encoder

BATCH = 128


class Plain(Dataset[Tensor]):
    """What a training script without clray does."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        image = ImageOps.fit(Image.open(self.files[index]).convert("RGB"), (self.size, self.size), Image.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def write_images(folder: Path, count: int) -> list[Path]:
    """Smooth colours with noise of two scales, 400 x 300, about 30 kB each, as photos are."""
    generator = np.random.default_rng(0)
    files = []
    for number in range(count):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((400, 300), Image.BICUBIC)).astype(np.float32)
        grain = generator.normal(0, 10, (150, 200)).astype(np.float32)
        pixels = pixels + np.asarray(Image.fromarray(grain).resize((400, 300)))[..., None]
        pixels += generator.normal(0, 4, pixels.shape)
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1], quality=88)
    return files


def plain_batches(files: list[Path], size: int, decoders: int) -> Iterable[Tensor]:
    return DataLoader(Plain(files, size), batch_size=BATCH, num_workers=decoders)


def clray_batches(files: list[Path], size: int, decoders: int) -> Iterable[Tensor]:
    config = DataConfig(name="csv", train_path="unused", image_size=size, num_decoders=decoders)
    images = EncodedImages.of_files(files, PixelRules.of(config))
    chunks = [np.arange(at, min(at + BATCH, len(files))) for at in range(0, len(files), BATCH)]
    return (pixels for pixels, _ in images.batches(chunks, config))


def train(encoder: nn.Module | None, pixels: Tensor) -> None:
    if encoder is not None:
        encoder(pixels.float().div(255)).square().mean().backward()


def held_mib() -> float:
    process = psutil.Process()
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            memory = each.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except psutil.Error:  # a process that has just ended
            continue
    return total / 2**20


def measured(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and the most memory held meanwhile in MiB."""
    most, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            most[0] = max(most[0], held_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    return seconds, most[0]


def compare(files: list[Path], size: int, decoders: int, repeats: int, encoder: nn.Module | None) -> None:
    rates: dict[str, list[float]] = {"plain": [], "clray": []}
    memory = {"plain": 0.0, "clray": 0.0}
    for _ in range(repeats):
        for name, batches in (("plain", plain_batches), ("clray", clray_batches)):

            def run(batches: Callable[..., Iterable[Tensor]] = batches) -> None:
                for pixels in batches(files, size, decoders):
                    train(encoder, pixels)

            seconds, held = measured(run)
            rates[name].append(len(files) / seconds)
            memory[name] = max(memory[name], held)
    plain, own = (statistics.median(rates[name]) for name in ("plain", "clray"))
    ratios = sorted(b / a for a, b in zip(rates["plain"], rates["clray"], strict=True))
    what = "decoding alone" if encoder is None else "with small_cnn"
    print(
        f"{size} px, {what}: plain {plain:.0f} images/s ({memory['plain']:.0f} MiB), clray {own:.0f} images/s "
        f"({memory['clray']:.0f} MiB), {own / plain:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224])
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), options.images)
        size = sum(file.stat().st_size for file in files) / len(files) / 1e3
        print(f"{cpu}, {psutil.cpu_count()} CPUs; {len(files)} JPEG of 400 x 300, {size:.0f} kB each", flush=True)
        for size_wanted in options.sizes:
            compare(files, size_wanted, options.decoders, options.repeats, None)
        encoder, _ = build_encoder(EncoderConfig(name="small_cnn"), 3)
        compare(files, options.sizes[0], options.decoders, options.repeats, encoder)


if __name__ == "__main__":
    main()

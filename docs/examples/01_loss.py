"""The Cl-InfoNCE loss in a training loop of one's own: no Ray, no config, any encoder."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from clray.objective.contrastive import cl_infonce

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
cluster_ids = torch.tensor(digits.target)  # labels here; any int64 ids will do

encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)

for step in range(100):
    batch = torch.randint(len(images), (256,))
    views = torch.stack([images[batch] + 0.1 * torch.randn(256, 64) for _ in range(2)])
    z = F.normalize(encoder(views), dim=-1)  # [views, batch, dim], unit length
    value = cl_infonce(z, cluster_ids[None, batch], temperature=0.2)
    optimizer.zero_grad()
    value.loss.backward()
    optimizer.step()
    if step % 25 == 0 or step == 99:
        print(f"step {step:3}  loss {value.loss.item():.3f}  positives per anchor {value.num_positives.item():.1f}")

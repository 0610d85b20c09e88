"""The machine in a line, to stand beside every figure: its processor, what of bfloat16 it has, and how busy it is."""

import os
import subprocess

import torch


def machine() -> str:
    """Such as `AMD EPYC, 2 CPUs, avx512_bf16, no amx_bf16; torch 2.15.0; load 0.2`."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; {cpu()}; torch {torch.__version__}"
    return f"{cpu()}; torch {torch.__version__}; load {os.getloadavg()[0]:.1f}"


def cpu() -> str:
    """The CPU's model and the flags that decide how fast bfloat16 is, by `lscpu` where there is one."""
    try:
        told = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"unknown CPU, {os.cpu_count()} CPUs"
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("Model name")]
    flags = ", ".join(flag if f" {flag}" in told else f"no {flag}" for flag in ("avx512_bf16", "amx_bf16"))
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} CPUs, {flags}"

"""The device that tensors live on."""

import torch


def pick_device(device):
    """`device` as a torch.device; None means CUDA if present, else CPU."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device = {device!r}: must be None, 'cpu' or 'cuda'") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device = {str(device)!r}: must be None, 'cpu' or, where there is a GPU, 'cuda'")
    return device

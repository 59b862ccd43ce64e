"""Choosing a device: explicit means that device or an error that explains itself, `auto` falls back once and out loud.

Runs on any machine. On one without a GPU it shows what a user there would read.
"""

from __future__ import annotations

import warnings

import torch

import bedstone as bs


def show_the_report() -> None:
    print("Every candidate on this machine:")
    for row in bs.device_report():
        print(f"  {row.backend:5} {row.verdict:9} {row.code:16} {row.reason}")
        if row.remedy:
            print(f"  {'':5} what to do: {row.remedy}")


def let_it_choose() -> torch.device:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        device = bs.get_device(bs.DeviceConfig(package="example"))  # once loud,
        bs.get_device(bs.DeviceConfig(package="example"))  # then silent
    print(f"\nauto gives {device}, with {len(caught)} warning(s):")
    for warning in caught:
        print(f"  {warning.category.__name__}: {warning.message}")
    return device


def ask_for_too_much() -> None:
    print("\nAsking for CUDA device 7:")
    try:
        print(f"  {bs.get_device(bs.DeviceConfig(cuda_device=7))} is there")
    except bs.DeviceNotAvailableError as error:
        print(f"  {error}")
        print(f"  as facts: reason {error.reason}, devices seen {error.context['count']}, mask {error.context['mask']}")


def main() -> None:
    show_the_report()
    device = let_it_choose()
    ask_for_too_much()
    print(f"\nChosen on purpose, hence no warning: {bs.get_device('cpu')}")
    total = torch.arange(4, device=device).sum()
    print(f"A tensor on {total.device}: {total.item()}")


if __name__ == "__main__":
    main()

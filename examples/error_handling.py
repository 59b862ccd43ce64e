"""Handling failures: one base to catch them all, built-ins that still match, facts as attributes, an event for each."""

from __future__ import annotations

import json
import logging

import torch

import bedstone as bs


def catch_by_what_you_know() -> None:
    """Code that has never heard of bedstone catches its errors too."""
    try:
        bs.estimate_tensor_bytes((4096, -1), torch.float32)
    except ValueError as error:
        print(f"ValueError caught it: {error}")


def read_the_facts() -> None:
    """No parsing of sentences: sizes are numbers."""
    tracker = bs.MemoryTracker(limit_bytes=1_000)
    tracker.allocate(600)
    try:
        tracker.allocate(600)
    except bs.OutOfMemoryError as error:
        short = error.requested_bytes - (error.limit_bytes - error.allocated_bytes)
        print(f"Short by {short} bytes. For a log: {json.dumps(error.to_dict())}")


def translate_what_torch_says() -> None:
    """A torch error gains the intention; the original stays as its cause."""
    try:
        with bs.translate_torch_errors(doing="project the hidden states"):
            torch.ones(2, 3) @ torch.ones(2, 3)
    except bs.FrameworkError as error:
        print(f"{error}\n  caused by {type(error.__cause__).__name__}")


def see_it_as_an_event() -> None:
    """At level debug every raised error is logged with its place; numbers and names are fields."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.event)
    logger = logging.getLogger("bedstone")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        bs.get_device("cuda:99")
    except bs.CoreError as error:
        print(f"{error.code}: {error.remedy}")
    print(f"The event: {[line['code'] for line in lines if line['event'] == 'error']}")


if __name__ == "__main__":
    catch_by_what_you_know()
    read_the_facts()
    translate_what_torch_says()
    see_it_as_an_event()

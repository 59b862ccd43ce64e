"""Share a tensor's memory with NumPy and back, for every dtype, and write into a buffer that was allocated once.

Run it with `python examples/zero_copy.py`. NumPy stands for any library that speaks DLPack.
"""

import numpy as np
import torch

import bedstone as bs
from bedstone.interop import SharingError


def share_a_tensor() -> None:
    weight = torch.zeros(2, 3)
    handle = bs.tensor_to_handle(weight.t())
    array = np.asarray(handle)
    array[0, 1] = 42.0
    print(f"{handle.shape} with strides {handle.strides}: same memory: {array.ctypes.data == weight.data_ptr()}")
    print(f"NumPy wrote {array[0, 1]}, torch reads {weight[1, 0].item()}")


def share_bfloat16() -> None:
    weight = torch.tensor([1.0, -2.0], dtype=torch.bfloat16)
    bits = np.from_dlpack(bs.tensor_to_handle(weight).bits())
    bits ^= 0x8000  # the sign bit
    back = bs.handle_to_tensor(bits, dtype="bf16")
    print(f"bfloat16 travels as {bits.dtype}; signs turned in NumPy: {weight.tolist()}")
    print(f"back in torch without a copy: {back.data_ptr() == weight.data_ptr()}")


def refuse_what_cannot_be_shared() -> None:
    for array in (np.arange(3.0)[::-1], np.broadcast_to(np.float32(1), (3,))):
        try:
            bs.handle_to_tensor(array)
        except SharingError as error:
            print(f"Refused: {error}")


def fill_one_buffer() -> None:
    out = bs.allocate_output_buffer((4, 4), "f32", "cpu")
    addresses = set()
    for step in range(3):
        torch.mm(torch.full((4, 4), float(step)), torch.eye(4), out=out)
        addresses.add(bs.tensor_to_handle(out).pointer)
    print(f"3 results, {len(addresses)} address: {out[0].tolist()}")


def send_to_another_process() -> None:
    buffer = bs.TensorBuffer.from_tensor(torch.arange(3, dtype=torch.int16))
    print(f"As bytes for a file or a process: {buffer} with {buffer.nbytes} bytes")


if __name__ == "__main__":
    share_a_tensor()
    share_bfloat16()
    refuse_what_cannot_be_shared()
    fill_one_buffer()
    send_to_another_process()

"""What HF peft needs from us, nothing more: peft does adapters."""

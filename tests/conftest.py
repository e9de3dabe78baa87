"Property tests take the same examples in every run; `make fuzz` looks for new ones."

import torch
from hypothesis import settings

settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("fuzz", deadline=None, database=None, print_blob=True)
settings.load_profile("same")

# PyTorch counts devices at its first backward pass. A compiled function before it would add one, with a thread of its
# own, and then no fork of this process could train any more (test_safety.py kills forks that do).
torch.ones(1, requires_grad=True).sum().backward()

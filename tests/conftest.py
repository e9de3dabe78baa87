"Property tests take the same examples in every run; `make fuzz` looks for new ones."

import signal
import threading

import torch
from hypothesis import settings

settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("fuzz", deadline=None, database=None, print_blob=True)
settings.load_profile("same")

# PyTorch counts devices at its first backward pass. A compiled function before it would add one, with a thread of its
# own, and then no fork of this process could train any more (test_safety.py kills forks that do).
torch.ones(1, requires_grad=True).sum().backward()

# A suite that was started in the background ignores ctrl + c, and so would the commands that tests start and stop by it.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

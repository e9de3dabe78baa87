"A few hundred broken files for every reader, the same in every run: `tests/fuzz.py` says what may come of them."

import pytest
from fuzz import READERS, fuzz


@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_read_right_or_named(name):
    outcomes, found = fuzz(name, 200, seed=0)
    assert not found, "\n".join(f"{data[:200]!r}\n{text}" for text, data in found.items())
    assert outcomes["error"] > 0

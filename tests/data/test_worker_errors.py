"""An error in a loading process is reported as its sentence, without the process's traceback."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

from riszoo.data.images import ImageError
from riszoo.errors import UserError

SENTENCE = "image a: b.png cannot be read: it is cut; replace the file"


class Broken(Dataset[int]):
    def __init__(self, kind: type[UserError]) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise OSError("the cause")
        except OSError as error:
            raise self.kind(SENTENCE) from error


@pytest.mark.parametrize("kind", [UserError, ImageError])
def test_an_error_of_a_loading_process_is_its_sentence(kind: type[UserError]) -> None:
    with pytest.raises(kind) as caught:
        next(iter(DataLoader(Broken(kind), num_workers=1)))
    assert str(caught.value) == SENTENCE

import asyncio
from pathlib import Path

import pytest

from keysvc import reloading as reloading_module
from keysvc.reloading import Reloaded, reloading


class Used:
    """Files, and what was used of them; what says ``bad`` is refused."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "a", folder / "b"]
        for file in self.files:
            file.write_text("old")
        self.used: list[str] = []
        self.refused = 0
        self.reloaded = Reloaded(self.files, self._use)

    def _use(self) -> None:
        text = " ".join(file.read_text() if file.exists() else "bad" for file in self.files)
        if "bad" in text:
            self.refused += 1
            raise ValueError("it is bad")
        self.used.append(text)

    def look(self, times: int) -> None:
        """Look several times."""
        for _ in range(times):
            self.reloaded.look()


@pytest.fixture
def used(tmp_path: Path) -> Used:
    """Two files that have been used as they are."""
    return Used(tmp_path)


def test_what_has_not_changed_is_not_used_again(used: Used) -> None:
    """Not even when it is written again."""
    used.look(3)
    used.files[0].write_text("old")
    used.look(3)
    assert used.used == []


def test_a_change_is_used_once_and_not_while_it_is_being_written(used: Used) -> None:
    """Between one file and the next they do not belong together."""
    used.files[0].write_text("new")
    used.look(1)
    used.files[1].write_text("new")
    used.look(1)
    assert used.used == []
    used.look(5)
    assert used.used == ["new new"]


def test_bad_files_are_refused_once(used: Used) -> None:
    """What was used stays; the next change is looked at again, be it back to what was before."""
    used.files[0].write_text("bad")
    used.look(5)
    assert (used.used, used.refused) == ([], 1)
    used.files[0].unlink()
    used.look(5)
    assert (used.used, used.refused) == ([], 2)
    used.files[0].write_text("old")
    used.look(5)
    assert used.used == ["old old"]


async def test_files_are_looked_at_until_the_end(used: Used, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, beside everything else."""
    monkeypatch.setattr(reloading_module, "LOOK_SECONDS", 0.01)
    async with reloading(used.reloaded):
        used.files[0].write_text("new")
        async with asyncio.timeout(20):
            while not used.used:  # noqa: ASYNC110 (it is set by a thread)
                await asyncio.sleep(0.01)
    used.files[0].write_text("newer")
    await asyncio.sleep(0.1)
    assert used.used == ["new old"]

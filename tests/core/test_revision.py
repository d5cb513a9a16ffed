from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.revision import Revision

EPOCH = UUID("01234567-89ab-4cde-8f01-23456789abcd")
HEX = EPOCH.hex


def test_a_revision_is_the_text_made_by_hand() -> None:
    """Revisions that callers keep are understood by every later version."""
    assert str(Revision(EPOCH, 42)) == "0123456789ab4cde8f0123456789abcd.42"


@given(epoch=st.uuids(), seq=st.integers(min_value=0, max_value=2**63 - 1))
def test_a_revision_is_read_as_it_was_written(epoch: UUID, seq: int) -> None:
    """Every position of every log survives the way to the caller and back."""
    assert Revision.parse(str(Revision(epoch, seq))) == Revision(epoch, seq)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "42", f"{HEX}", f"{HEX}.", f".{HEX}", f"{HEX}.x", f"{HEX}.4.2", f"{HEX}..42", f"{HEX}.4 2"),
        *(f"{HEX}.042", f"{HEX}.+42", f"{HEX}.4_2", f"{HEX}. 42", f"{HEX}.42\n", f" {HEX}.42", f"{HEX}.\u0664"),
        *(f"{EPOCH}.42", f"{{{EPOCH}}}.42", f"urn:uuid:{EPOCH}.42", f"{HEX.upper()}.42", f"{HEX[:-1]}.42"),
        *(f"{HEX}0.42", f"{HEX}.42.0", f"{HEX}.4e1", f"{HEX}.{'9' * 5000}", "9" * 10**6, "\ud800.1"),
    ],
    ids=lambda text: ascii(text[:50]),
)
def test_any_other_text_is_refused(text: str) -> None:
    """There is one way to write a revision, so that callers may compare the texts; another is not repeated."""
    with pytest.raises(ValueError, match=r"^must be a revision from a receipt or an answer of Verify$"):
        Revision.parse(text)


@given(text=st.text())
def test_no_text_is_an_accident(text: str) -> None:
    """Whatever a caller sends is a bad field."""
    with pytest.raises(ValueError, match="must be a revision"):
        Revision.parse(text)

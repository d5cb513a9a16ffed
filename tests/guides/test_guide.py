from pathlib import Path

import pytest

from tests.guides.guide import problems


def run(folder: Path, guide: str) -> list[str]:
    """Run a guide that needs no server; what is wrong with it."""
    file = folder / "a-guide.md"
    file.write_text(guide)
    return problems(file, folder, "127.0.0.1:1", "an-operator-key")


def test_a_guide_that_does_what_it_says(tmp_path: Path) -> None:
    """One session in one folder; output on a terminal; files by their name; addresses, and keys to be pasted."""
    guide = """
```bash
VALUE=kept
test -t 1
```

Save this as `file.py`:

```python
import sys
print("$VALUE", sys.argv[1])
```

```bash
python file.py $VALUE
echo 127.0.0.1:50051 $KEYSVC_ADDRESS $KEYSVC_API_KEY
false
```

```text
$VALUE kept
127.0.0.1:50051 127… an-operator-key
```

```sh
exit 1
```

```bash
echo one; echo two; echo three
```

```text
…
th…e
```
"""
    assert not run(tmp_path, guide)
    assert not run(tmp_path, "```bash\nexport KEYSVC_API_KEY=sk_live_…\ntest $KEYSVC_API_KEY = an-operator-key\n```\n")


@pytest.mark.parametrize(
    ("guide", "line"),
    [
        ("```bash\ntrue\nfalse\n```\n", 1),
        ("```bash\nkeysvc nonsense; true\n```\n", 1),
        ("```bash\ntrue\n```\n\n```bash\necho one\n```\n```text\ntwo\n```\n", 5),
        ("```bash\necho one; echo two\n```\n```text\none\n```\n", 1),
        ("```bash\ntrue\n```\n```bash\nexit\n```\n", 4),
    ],
)
def test_a_guide_that_does_not_is_told_from_one_that_does(tmp_path: Path, guide: str, line: int) -> None:
    """A command that fails, an error in passing, another output, more output, an early end."""
    [problem] = run(tmp_path, guide)
    assert problem.startswith(f"a-guide.md, line {line}: ")

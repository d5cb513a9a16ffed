"""The bench: that it runs and measures everything. How fast anything is, no test says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.timeout(180)
def test_the_bench_runs_to_its_end(tmp_path: Path) -> None:
    """With few keys it produces every row, in a table and as JSON, and leaves nothing behind."""
    result = tmp_path / "bench.json"
    left = tmp_path / "temporary"
    left.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--keys", "2000", "--workspaces", "20", "--quick", "--json", result],
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(left)},
        start_new_session=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(result.read_text())
    assert {"method", "commit", "machine", "python", "grpcio", "postgresql", "keys", "workspaces"} <= written.keys()
    names = [figure["name"] for figure in written["figures"]]
    assert names[0] == "Get"
    assert names[-3:] == ["Verify", "Create in 20 workspaces", "Create in one workspace"]
    assert len([name for name in names if name.startswith("List ")]) == len(names) - 4 == 31
    for figure in written["figures"]:
        assert figure["calls"] > 0
        assert (figure["p50_ms"] is None) != (figure["per_second"] is None)
    assert "Create in one workspace" in done.stdout
    assert list(left.glob("keysvc-bench-*")) == []

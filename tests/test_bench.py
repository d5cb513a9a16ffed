"""The bench: that it runs and measures everything. How fast anything is, no test says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="the load generator is a Go program")

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.timeout(300)
def test_the_bench_runs_to_its_end(tmp_path: Path) -> None:
    """With few keys it measures every topic, in tables and as JSON, and leaves nothing behind."""
    result = tmp_path / "bench.json"
    left = tmp_path / "temporary"
    left.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--keys", "4000", "--workspaces", "20", "--quick", "--json", result],
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(left)},
        start_new_session=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(result.read_text())
    assert {"commit", "machine", "python", "grpcio", "postgresql", "keys", "workspaces", "effort"} <= written.keys()
    assert written["failures"] == {}
    rows = {topic["name"]: [row["name"] for row in topic["rows"]] for topic in written["topics"]}
    assert rows["contest"] == ["empty", "hot", "hot, all fields asked", "mixed, 90 % hot", "cold"]
    assert rows["records"][0] == "Get"
    assert rows["records"][-2:] == ["Create in 20 workspaces", "Create in one workspace"]
    assert len([name for name in rows["records"] if name.startswith("List ")]) == len(rows["records"]) - 3 == 31
    assert "Create in one workspace" in done.stdout
    assert list(left.glob("keysvc-bench-*")) == []

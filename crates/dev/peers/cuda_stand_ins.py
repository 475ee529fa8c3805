"""Lets a torch wheel that is linked against GPU libraries be imported without them.

On a CPU none of their functions is ever called, yet the loader wants the libraries, the symbols and the symbols'
versions. For each that is missing beside torch's own libraries this compiles one in which every function returns 100,
"no device". What runs on the CPU is the wheel's own code. Does nothing where torch can be imported as it is.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path

SYSTEM = re.compile(r"(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|ld-linux-x86-64)\.so")
GPU_NAME = re.compile(r"(cu|nv|nccl|__cuda)", re.IGNORECASE)
C_NAME = re.compile(r"[A-Za-z_]\w*$")
GIVES_TEXT = {"cudaGetErrorString", "cudaGetErrorName", "cudnnGetErrorString", "ncclGetErrorString"}


def readelf(*args):
    return subprocess.run(["readelf", *args], check=True, capture_output=True, text=True).stdout


class Wanted:
    """What torch's libraries want of others, and have themselves."""

    def __init__(self, folder):
        self.needed = set()
        self.versions = defaultdict(set)
        self.versioned = defaultdict(set)
        self.plain, self.defined = set(), set()
        for path in folder.glob("*.so"):
            self.needed |= set(re.findall(r"NEEDED.*\[(.+?)\]", readelf("-dW", path)))
            self.read_versions(path)
            self.read_symbols(path)

    def read_versions(self, path):
        library = None
        for line in readelf("-VW", path).splitlines():
            if found := re.search(r"File: (\S+)", line):
                library = found[1]
            elif library and (found := re.search(r"Name: (\S+)\s+Flags", line)):
                self.versions[library].add(found[1])

    def read_symbols(self, path):
        for line in readelf("--dyn-syms", "-W", path).splitlines():
            words = line.split()
            if len(words) < 8 or not words[0].endswith(":"):
                continue
            name, _, version = words[7].partition("@")
            if words[6] != "UND":
                self.defined.add(name)
            elif version:
                self.versioned[version].add(name)
            else:
                self.plain.add(name)


def source(names):
    """C of functions that say that there is no device."""
    if not names:
        return "int stand_in;\n"
    text = [f'const char *{name}(void) {{ return "no device"; }}' for name in sorted(names & GIVES_TEXT)]
    return "\n".join(text + [f"long {name}(void) {{ return 100; }}" for name in sorted(names - GIVES_TEXT)]) + "\n"


def compile_library(folder, library, names, versions):
    """`versions` has the names of each version of the library's symbols."""
    with tempfile.TemporaryDirectory() as scratch:
        code, script = Path(scratch, "stand_in.c"), Path(scratch, "versions")
        code.write_text(source(names))
        command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{library}"]
        if versions:
            body = {version: " ".join(f"{name};" for name in sorted(own)) for version, own in versions.items()}
            script.write_text("".join(
                f"{version} {{ {f'global: {own}' if own else ''} }};\n" for version, own in sorted(body.items())
            ))
            command.append(f"-Wl,--version-script={script}")
        subprocess.run([*command, "-o", str(folder / library), str(code)], check=True)


def main():
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0:
        return
    folder = Path(sysconfig.get_paths()["purelib"], "torch", "lib")
    wanted = Wanted(folder)
    present = {path.name for path in folder.iterdir()}
    missing = sorted(name for name in wanted.needed if name not in present and not SYSTEM.match(name))
    # Symbols without a version may be anyone's: the runtime library has them all.
    loose = {name for name in wanted.plain - wanted.defined if GPU_NAME.match(name)}
    carrier = next((name for name in missing if name.startswith("libcudart")), missing[0] if missing else None)
    for library in missing:
        versions = {
            version: {name for name in wanted.versioned[version] if C_NAME.match(name)}
            for version in wanted.versions[library]
        }
        names = set().union(*versions.values()) if versions else set()
        names |= {name for name in loose if C_NAME.match(name)} if library == carrier else set()
        compile_library(folder, library, names, versions)
        print(f"{library}: {len(names)} functions")
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


if __name__ == "__main__":
    main()

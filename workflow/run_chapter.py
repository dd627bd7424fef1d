"""Execute one chapter: `run_chapter.py NOTEBOOK OUT KEY=VALUE...` (called by the Snakefile)."""

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from PIL import Image

# The kernel `python3` is that of this Python, whatever other kernels the reader has installed:
# started by `warm.py` where that is at work.
os.environ |= {"JUPYTER_PATH": os.environ.get("ASNLSR_WARM", ""), "JUPYTER_PREFER_ENV_PATH": "1"}
VIEW = "application/vnd.jupyter.widget-view+json"


def is_static(output: dict[str, Any]) -> bool:
    """Tell whether an output lives without a kernel; a bare progress bar does not."""
    shown = output.get("data", {})
    return VIEW not in shown or "text/html" in shown


def packed(png: str) -> str:
    """Return a picture, in base64, in 256 colours: half the bytes, and no eye sees it."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(notebook: Path, out: Path, parameters: dict[str, object]) -> None:
    """Run `notebook` with `parameters` and write it with its outputs to `out`."""
    executed = papermill.execute_notebook(
        notebook,
        out,
        parameters,
        cwd=notebook.parent,
        progress_bar=False,
        extra_arguments=["--log-level=50"],  # of the kernel; an error in a cell is reported anyway
        shutdown_kernel="immediate",
    )
    # The state of the widgets would make every page ask a content network for their scripts.
    executed.metadata.pop("widgets", None)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_static(output)]
            for shown in (output.get("data", {}) for output in cell.outputs):
                if "image/png" in shown:
                    shown["image/png"] = packed(shown["image/png"])
            if "parameters" in (tags := cell.metadata.get("tags", [])):
                tags.append("remove-cell")  # the page shows the values that were used instead
    nbformat.write(executed, out)


if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[3:])
    values = {key: int(value) if key == "SEED" else value for key, value in pairs}
    main(Path(sys.argv[1]), Path(sys.argv[2]), values)

"""Two drawings that need no data: the network as a whole, and the way of the data."""

from matplotlib.figure import Figure

from asnlsr.figures import Box, diagram


def architecture() -> Figure:
    """Draw A-SNLSR: its parts, what they hand on, and the three losses."""
    boxes: dict[str, Box] = {
        "lr": (0.64, 0.9, "cube", "LR cube\nof either domain"),
        "G": (1.78, 0.9, "convolution", "encoder G"),
        "a": (2.75, 0.9, "cube", "abundances\n16 materials"),
        "J": (3.83, 0.9, "attention", "super-\nresolution J"),
        "H": (4.78, 0.9, "convolution", "decoder H"),
        "bicubic": (2.75, 0.3, "fixed", "bicubic × 4"),
        "plus": (5.4, 0.9, "sum", "+"),
        "sr": (5.4, 1.5, "cube", "SR cube"),
        "truth": (4.2, 1.5, "loss", "like the truth?\nsource only"),
        "H2": (3.75, 2.15, "convolution", "decoder H"),
        "input": (5.15, 2.15, "loss", "like the input?\nall tiles"),
        "turn": (2.75, 2.8, "fixed", "gradient\nreversal"),
        "D": (3.85, 2.8, "attention", "discriminator D"),
        "domain": (5.15, 2.8, "loss", "which domain?\nall tiles"),
        "same": (0.05, 1.75, "note", "G, J, H serve both domains;\nH holds the endmembers."),
        "game": (0.05, 2.75, "note", "D learns to tell the domains\napart, G to leave no clue."),
    }  # fmt: skip
    chains = ["lr G a J H plus sr truth", "a turn D domain", "H2 input"]
    detours = [("lr", "bicubic", 0.3), ("bicubic", "plus", 0.3), ("a", "H2", 2.15)]
    return diagram(boxes, chains, detours)


def data_flow() -> Figure:
    """Draw the way from a radiance scene to this book, and the command of every step."""
    boxes: dict[str, Box] = {
        "scene": (0.66, 0.25, "cube", "radiance scene\n300 channels"),
        "bins": (1.98, 0.25, "convolution", "Gaussian bins,\nwindows cut"),
        "bands": (3.38, 0.25, "cube", "SWIR1 | SWIR2\n30 | 30 bands"),
        "blur": (4.92, 0.25, "convolution", "blur, and every\n4th pixel"),
        "pairs": (4.92, 1.0, "cube", "tiles, LR and HR"),
        "split": (3.38, 1.0, "fixed", "roles by scene\nor by tile"),
        "train": (1.98, 1.0, "attention", "training"),
        "run": (0.66, 1.0, "cube", "run: weights\nand record"),
        "test": (0.66, 1.75, "attention", "evaluation"),
        "metrics": (1.98, 1.75, "cube", "metrics"),
        "tables": (3.38, 1.75, "fixed", "tables, figures"),
        "book": (4.92, 1.75, "cube", "chapters, this site"),
    }
    commands = {
        "prepare": (2.68, 0.58), "split": (3.18, 1.27), "train": (1.78, 1.27),
        "evaluate": (0.4, 2.02), "table": (3.18, 2.02),
    }  # fmt: skip
    notes = {f"{name}!": (x, y, "note", f"asnlsr {name}") for name, (x, y) in commands.items()}
    return diagram(
        boxes | notes, ["scene bins bands blur pairs split train run test metrics tables book"]
    )

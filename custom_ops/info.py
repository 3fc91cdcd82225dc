"""Says which kernels are in use: `python -m custom_ops.info`."""

from custom_ops import library


def lines() -> list[str]:
    """The report, one fact a line."""
    state = library.status()
    report = [f"custom_ops: {library.describe()}"]
    report.append(f"tensorflow: {state['tensorflow']}")
    report += [f"build {key}: {value}" for key, value in state["build"].items()]
    return report


if __name__ == "__main__":
    print("\n".join(lines()))

"""Says which kernels are in use: `python -m custom_ops.info`."""

from custom_ops import library


def lines() -> list[str]:
    """The report, one fact a line."""
    state = library.status()
    report = [f"custom_ops: {library.describe()}"]
    sparse = state["sparse_conv"]
    if sparse is not None:
        code = (
            "generated code"
            if sparse["generated_code"]
            else "no generated code (executable memory is refused, or "
            "SPARSE_CONV_JIT=0)"
        )
        report.append(
            f"sparse convolution: {sparse['isa']}, {code}; kernels "
            f"{', '.join(sparse['kernels'])}"
        )
    report.append(f"tensorflow: {state['tensorflow']}")
    report += [f"build {key}: {value}" for key, value in state["build"].items()]
    return report


if __name__ == "__main__":
    print("\n".join(lines()))

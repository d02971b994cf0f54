"""Findings above captions: what a figure of measurements shows, computed from its numbers."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from study.verdicts import listed


def planes(bits: Tensor) -> str:
    """How ragged bit-planes are: bits (8, H, W) of 0 and 1, the plane of 1 first."""
    beside = (bits[:, :, 1:] != bits[:, :, :-1]).float().mean((1, 2))
    below = (bits[:, 1:] != bits[:, :-1]).float().mean((1, 2))
    low, high = (100 * ((beside + below) / 2)[[0, -1]]).tolist()
    how = "The lower a plane, the more it is noise" if low > high else "No plane is pure noise"
    return (
        f"{how}: {high:.1f} % of neighbouring pixels differ in the plane that counts 128, "
        f"{low:.1f} % in the one that counts 1."
    )


def distances(layers: Sequence[tuple[Tensor, Tensor]]) -> str:
    """How far sums are from thresholds: for each hidden layer sums (N,) and thresholds (N,)."""
    later = [(sums - limits).abs() for sums, limits in layers[1:]]
    far = torch.cat(later).float()
    middle, near = far.median().item(), 100 * (far <= 2).float().mean().item()
    return (
        f"Most sums lie far from their thresholds: the median one of layers 2 to {len(layers)} by "
        f"{middle:.0f}, while a changed input moves a sum by 2. So one change turns at most "
        f"{near:.1f} % of these bits."
    )


def scores(values: Tensor, label: int) -> str:
    """The two highest of one image's scores (10,)."""
    (first, second), (one, other) = (part.tolist() for part in values.topk(2))
    return (
        f"The label is {label}. The highest score is {first:.2f}, of class {one}; the next is "
        f"{second:.2f}, of class {other}."
    )


def pictures(errors: Mapping[str, float]) -> str:
    """Binarizations of a picture by their RMS error, in the order of their names."""
    nearest = min(errors, key=errors.__getitem__)
    parts = [f"{name} {error:.2f}" for name, error in errors.items()]
    return f"RMS errors: {listed(parts)}; nearest to the picture is {nearest}."


def sums(counts: Sequence[int], rms: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Tell from how many terms on the toss is nearer.

    rms: a case -> RMS errors of the sign and of the toss, each (counts,).
    """
    parts = []
    for case, (sign, toss) in rms.items():
        nearer = [count for count, a, b in zip(counts, sign, toss, strict=True) if b < a]
        words = case.partition(":")[0]
        parts.append(
            f"where terms are {words} the toss is nearer from K = {nearer[0]} on"
            if nearer
            else f"where terms are {words} the sign is nearer at every K"
        )
    return f"By the formulas, {listed(parts)}."


def cosines(frame: pd.DataFrame) -> str:
    """Cosines with the true gradient; frame: n, spread, gradient, cosine, a row per point."""
    some = frame[frame["n"] == 8]
    table = some.pivot_table("cosine", "spread", "gradient")
    wide = table.index.max()
    at_one = "; ".join(f"{name} {table.loc[1, name]:.2f}" for name in table)
    gain = table.loc[wide, "expected"] - table.loc[wide, "expected, not cancelled"]
    apart = f"{'above' if gain > 0 else 'below'} the uncancelled one by {abs(gain):.2f}"
    return (
        f"The cosine with the truth at 8 units and a deviation of 1 is: {at_one}. "
        f"At a deviation of {wide:g}, where most units saturate, the cancelled expectation lies "
        f"{apart}."
    )


def lost_steps(longest: Mapping[str, pd.Series], bits: Sequence[int]) -> str:
    """Tell when bits begin to lose nearly every step; a network -> its longest step by epoch."""
    parts = []
    for network, steps in longest.items():
        lost = {each: steps.index[steps < 1 / (2**each - 1)] for each in bits}
        told = [
            f"{each} bits from epoch {min(found)}" for each, found in lost.items() if len(found)
        ]
        parts.append(f"for {network} with {listed(told) if told else 'none of these bits'}")
    return f"Rounded to nearest, nearly every step is lost {'; '.join(parts)}."


def accumulated(frame: pd.DataFrame) -> str:
    """Errors of summed gradients; frame: bits, rounding, batches, error, a row per point."""
    last = frame[frame["batches"] == frame["batches"].max()]
    table = last.pivot_table("error", "bits", "rounding").sort_index(ascending=False)
    parts = [
        f"{bits} bits {row['nearest']:.2g} to nearest and {row['stochastic']:.2g} at random"
        for bits, row in table.iterrows()
    ]
    return (
        f"After {last['batches'].iloc[0]} batches the sum is off, relative to its length, with "
        f"{'; '.join(parts)}."
    )


def stored(walks: Mapping[int, tuple[Tensor, Tensor]], off: Sequence[Sequence[Tensor]]) -> str:
    """Name numbers that never move; walks: bits -> paths (updates + 1, draws), to nearest first.

    off: of the same bits in order, RMS errors at the end, to nearest and at random.
    """
    still = [bits for bits, (nearest, _) in walks.items() if nearest[-1, 0] == nearest[0, 0]]
    stuck = f"with {max(still)} bits or fewer" if still else "with none of these bits"
    bits, (nearest, drawn) = next(zip(walks, off, strict=True))
    return (
        f"Rounded to nearest, the number never moves {stuck}. With {bits} bits it ends off by "
        f"{nearest:.2f}, and rounded at random by {drawn:.2f}."
    )


def generators(times: pd.DataFrame) -> str:
    """Nanoseconds a number; times: a row per way, column `signs`; "sign" draws nothing."""
    drawn = times["signs"].drop("sign")
    eight = drawn.filter(like=", 8 bits")
    return (
        f"The sign takes {times.loc['sign', 'signs']:.3g} ns a number, the fastest draw "
        f"({drawn.idxmin()}) {drawn.min():.3g} ns, the slowest ({drawn.idxmax()}) "
        f"{drawn.max():.3g} ns; with 8 random bits it is {eight.min():.3g} to {eight.max():.3g} "
        f"ns, by generator."
    )


def light(before: Tensor, after: Tensor) -> str:
    """Differences in brightness before and after contrast normalization; both (N, C, H, W)."""
    one, other = (_span(part) for part in (before, after))
    how = "takes most" if other < one / 2 else "keeps most"
    return (
        f"Contrast normalization {how} differences in light: the images' mean brightness spans "
        f"{one:.0f} % of the range above and {other:.0f} % below."
    )


def _span(images: Tensor) -> float:
    """Range of the images' means in % of the range of all pixels."""
    means = images.mean((1, 2, 3))
    return (100 * (means.max() - means.min()) / (images.max() - images.min())).item()


def speeds(machines: Mapping[str, Sequence[float | None]]) -> str:
    """Products machine by machine: ms of plain float32, float32 library, XNOR kernel and ours."""
    parts = []
    for name, (plain, library, xnor, ours) in machines.items():
        ratios = [
            f"{label} {' and '.join(f'{base / ms:.3g} ×' for base in (plain, library) if base)}"
            for label, ms in (("the XNOR kernel", xnor), ("ours", ours))
            if ms
        ]
        parts.append(f"{name}: {', '.join(ratios)}")
    told = "; ".join(parts)
    return f"Times as fast as plain float32, and as the fastest float32 library: {told}."


def sweep(machine: str, speed: pd.DataFrame, bound: str, library: pd.Series) -> str:
    """The largest product; speed: by N and implementation, library: ms of the fastest by N, both
    of 2 N^3 operations."""
    n = int(speed["ours"].dropna().index.max())
    ours = speed.loc[n, "ours"]
    near = f" at {ours / speed.loc[n, bound]:.0%} of the bound," if bound in speed else ""
    ratio = ours / (2 * n**3 / 1e9 / library[n])
    return (
        f"On {machine}, at N = {n}, ours runs{near} {ratio:.3g} times as fast as the fastest "
        "float32 library."
    )


def extrapolated(shares: pd.Series, as_wide: bool) -> str:
    """Tell how many filters, drawn as often as a network's, would differ at the paper's widths.

    shares: the last row of `filters.extrapolation`; as_wide: the network has those widths itself.
    """
    low, high = (shares[f"the paper's width{how}"] for how in ("", ", evened"))
    drawn = f"{low:.0f} to {high:.0f} %"
    if as_wide:
        counted = f"This network has the paper's widths: {shares['counted']:.1f} % are counted"
        return f"{counted}, and drawn independently at the same frequencies {drawn} would differ"
    return f"Filters as frequent as here would be {drawn} distinct on average at the paper's widths"


def most_energy(parts: Mapping[str, Mapping[str, float]], images: int) -> str:
    """Largest parts of a binary forward pass; a network -> part -> energy."""
    told = []
    for network, energies in parts.items():
        whole = sum(energies.values())
        largest = sorted(energies, key=energies.__getitem__, reverse=True)[:2]
        shares = [f"{name} {energies[name] / whole:.0%}" for name in largest]
        told.append(f"{network} {listed(shares)}")
    return f"On bits, {images} images at once, most energy goes into: {'; '.join(told)}."


def retrieval(means: Mapping[str, Mapping[str, float]], times: pd.Series) -> str:
    """How well and how fast codes find; means: a network -> ranking -> mAP in %; times in ms."""
    told = []
    for network, ways in means.items():
        parts = [f"{value:.1f} % by {way.partition(',')[0]}" for way, value in ways.items()]
        told.append(f"{network}: {listed(parts)}")
    precision = f"Mean average precision, {'; '.join(told)}."
    if times.empty:
        return f"{precision} The speed was not measured."
    ours, every = (times[name] for name in ("ours", "ours, nothing skipped"))
    others = {name: ms for name, ms in times.items() if "ours" not in name}
    faster = [f"{ms / ours:.3g} × as fast as {name}" for name, ms in others.items()]
    alone = [f"{ms / every:.3g}" for ms in others.values()]
    both = [f"{ms / ours:.3g} ×" for name, ms in times.items() if name.endswith("as ours")]
    return (
        f"{precision} Ours searches {listed(faster)}; when it skips nothing, {listed(alone)} ×; "
        f"where both skip the same tiles, {listed(both or ['not run'])}."
    )


def clients(frame: pd.DataFrame) -> str:
    """Tell what leads in what, bits or other numbers; frame: a row per kind, the first of bits."""
    columns = {"file (MB)": "The smallest file", "one image (ms)": "the quickest image"}
    columns["load (s)"] = "the quickest start"
    parts = []
    for column, words in columns.items():
        best = frame.loc[frame[column].idxmin()]
        unit = column.partition("(")[2].rstrip(")")
        bits = "" if best["numbers"] == "bits" else f" (bits: {frame[column].iloc[0]:.3g} {unit})"
        parts.append(f"{words} is of {best['numbers']}, {best[column]:.3g} {unit}{bits}")
    return f"{'; '.join(parts)}."


def filters_by_epoch(shares: pd.Series, said: float) -> str:
    """How far training takes distinct filters; shares: mean % by epoch, 0 before training."""
    first, last = shares.iloc[0], shares.iloc[-1]
    step = last - shares.iloc[-2]
    return (
        f"The mean goes from {first:.1f} % to {last:.1f} % in {shares.index[-1]} epochs, by "
        f"{step:+.2f} points in the last one; the paper's average is {said:g} %."
    )


def needed_planes(shares: Mapping[tuple[str, int], float]) -> str:
    """Fewest bits of a pixel that leave all but 1 % of signs; (network, bits) -> % changed"""
    parts = []
    for name in dict.fromkeys(network for network, _ in shares):
        own = {k: share for (network, k), share in shares.items() if network == name}
        enough = min(k for k, share in own.items() if share <= 1)
        parts.append(f"{enough} bits on {name} ({own[enough]:.2f} %)")
    return f"At most 1 % of the signs change with the highest {listed(parts)}."


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The pair of classes that is confused most; matrix[i][j]: images of class i read as j."""
    wrong = {(i, j): n for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j}
    (i, j), most = max(wrong.items(), key=lambda pair: pair[1])
    total, images = sum(wrong.values()), sum(map(sum, matrix))
    if not total:
        return f"All {images} test images are read as what they are."
    return (
        f"{total} of {images} test images are misread; most often, {most} times, {names[i]} is "
        f"read as {names[j]}."
    )

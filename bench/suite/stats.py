"""Medians and what goes with them."""

import statistics


def spread(values):
    """Median and median absolute deviation."""
    middle = statistics.median(values)
    return {"median": middle, "mad": statistics.median(abs(value - middle) for value in values),
            "runs": values}


def text_of(figures, digits=0):
    return f"{figures['median']:.{digits}f} +- {figures['mad']:.{digits}f}"


def ratios(values, floors):
    """Of each run to its floor; None where there is no floor."""
    if not floors or any(floor <= 0 for floor in floors):
        return None
    return spread([value / floors[min(place, len(floors) - 1)]
                   for place, value in enumerate(values)])


def gather(samples):
    """Of dictionaries of numbers, a spread for each key that has a number in any of them."""
    keys = dict.fromkeys(key for sample in samples for key, value in sample.items()
                         if isinstance(value, (int, float)) and not isinstance(value, bool))
    return {key: spread([sample[key] for sample in samples
                         if isinstance(sample.get(key), (int, float))]) for key in keys}


def series_medians(series):
    """Of lists of unequal length, the median at each place that at least half of them have."""
    length = sorted(map(len, series))[len(series) // 2] if series else 0
    return [statistics.median(one[place] for one in series if place < len(one))
            for place in range(length)]


def beaten(ratio, slack=0.05):
    """Whether a figure is better than what should bound it."""
    return ratio is not None and ratio["median"] < 1 - slack

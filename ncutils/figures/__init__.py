"""One look for all figures: majority, minority and across keep colour and marker on every page;
a line is exact, a hollow marker a trained UFM, a filled marker a network on images.

`data` gives what a figure shows in numbers. A label of an artist that begins with "_" stands there
alone, not in the legend; what is labelled "_decoration" stands nowhere.

`group` is a key of `STYLES`: "A", "B", "AB", "linear", "relu", "K_A = 5" or "K_A = 3". `ax` are
Matplotlib's axes. Where nothing is said of it, a function draws on `ax` and returns nothing.
Source: ours.
"""

from .curves import (
    boundary,
    data,
    exact,
    legend_below,
    limit,
    network,
    panels,
    reference,
    threshold,
    trained,
    use_theme,
)
from .look import GREY, OTHERS, STYLES
from .pictures import directions, field, heatmap, plane_of_means

__all__ = [
    "GREY",
    "OTHERS",
    "STYLES",
    "boundary",
    "data",
    "directions",
    "exact",
    "field",
    "heatmap",
    "legend_below",
    "limit",
    "network",
    "panels",
    "plane_of_means",
    "reference",
    "threshold",
    "trained",
    "use_theme",
]

"""The look of all figures: colours, markers and lines of groups."""

from .._checks import check_choice

# Okabe and Ito's palette, told apart by colour-blind readers; markers tell them apart in grey.
STYLES = {
    "A": {"color": "#0072B2", "marker": "o", "linestyle": "-", "label": "majority A"},
    "B": {"color": "#D55E00", "marker": "s", "linestyle": "--", "label": "minority B"},
    "AB": {"color": "#007A5A", "marker": "^", "linestyle": "-.", "label": "across A, B"},
}
# Two curves that are both about the minority, for two numbers of majority classes.
STYLES |= {
    "K_A = 5": {"color": "#7A3E9D", "marker": "D", "linestyle": "-", "label": "K_A = 5"},
    "K_A = 3": {"color": "#8A6D00", "marker": "v", "linestyle": "--", "label": "K_A = 3"},
}
# The two kinds of last features.
STYLES |= {
    "linear": {"color": "#3F4A5A", "marker": "P", "linestyle": "-", "label": "linear features"},
    "relu": {"color": "#B5176B", "marker": "X", "linestyle": "--", "label": "ReLU features"},
}
GREY = "#555555"
# (colour, marker) of things that are no groups, such as starts, measures or single classes.
OTHERS = [("#1B1B1B", "x"), ("#56B4E9", "d"), ("#CC79A7", "*")]
DECORATION = "_decoration"  # label of what stands in no legend and in no file


def style_of(group):
    """Colour, marker, line and label of a group, else ValueError."""
    return STYLES[check_choice("group", group, tuple(STYLES))]

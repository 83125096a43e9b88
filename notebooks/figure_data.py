"""IPython extension of run.py: the data of the figures that the N-th cell draws go to
$NCUTILS_FIGURES/N.csv.

It is loaded before anything draws: its turn after a cell then comes before that of Matplotlib's
inline backend, which shows the figures and closes them.
"""

import os
import sys
from pathlib import Path


def load_ipython_extension(ipython):
    def keep():
        if "matplotlib.pyplot" not in sys.modules:
            return
        from matplotlib._pylab_helpers import Gcf

        # As the inline backend asks: pyplot would change the order in which it shows them.
        if drawn := [manager.canvas.figure for manager in Gcf.get_all_fig_managers()]:
            from ncutils import figures

            # the count is already the next cell's
            file = Path(os.environ["NCUTILS_FIGURES"], f"{ipython.execution_count - 1}.csv")
            file.write_text(figures.data(*drawn), encoding="utf-8")

    ipython.events.register("post_execute", keep)

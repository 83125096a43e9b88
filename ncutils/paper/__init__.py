"""The paper's experiments with networks: settings, tasks, runs, results and their figures."""

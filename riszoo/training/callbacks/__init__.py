"""Lightning callbacks: progress, the files of `predict`, and the dashboards of other programs."""

"""The HTML pages: leaderboard and report."""

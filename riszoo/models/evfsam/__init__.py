"""EVF-SAM, early vision-language fusion for Segment Anything (Zhang et al., arXiv 2406.20076)."""

"""The sections of a report: quality, alignment, diversity, stability, efficiency."""

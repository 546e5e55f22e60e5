"""The deciding parts of `sim`: which faults come when, and which of them were needed."""

"""alloop: active learning of DeePMD potentials for glasses, from the first label to the analysed glass."""

__version__ = "0.1.0"

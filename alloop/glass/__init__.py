"""Glass science as a library: compositions, force fields, crystals, melt-quench and analysis; knows no campaigns."""

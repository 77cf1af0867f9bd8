"""VASP: inputs, level of theory and recipes (`code`), and the judgement of its outputs (`judge`)."""

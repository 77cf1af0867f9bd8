"""DeePMD potentials and the molecular dynamics they drive; knows no campaigns."""

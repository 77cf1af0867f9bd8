"""`alloop report`: one self-contained page about a campaign and its glasses."""

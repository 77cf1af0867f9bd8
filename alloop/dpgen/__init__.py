"""DP-GEN in and out: a campaign of ``dpgen run`` goes on in alloop, and one of alloop in ``dpgen run``."""

#!/bin/bash
# Runs one label of vasp or cp2k in its private folder, in an environment that holds nothing but the person's HOME, the
# batch job's own variables and the system's PATH. What a site needs before the command goes here.
[ -r /etc/profile ] && source /etc/profile   # defines `module` on most clusters
@MODULES@
ulimit -s unlimited 2>/dev/null
export OMP_NUM_THREADS=1
@ENVIRONMENT@
exec @COMMAND@

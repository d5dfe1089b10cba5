#!/bin/sh
''':'
# Starts PROGRAM. Ctrl-C while Python itself starts would end in a traceback out of its own files: it is held back
# until the first line of MODULE lets it through, with an `env` that can (GNU's, from 8.31 on).
here=$0
resolved=$(readlink -f -- "$0" 2> /dev/null) && here=$resolved
python=$(dirname -- "$here")/python
[ -x "$python" ] || python=${python}3
[ -x "$python" ] || python=python3
if env --block-signal=INT true 2> /dev/null; then
    exec env --block-signal=INT "$python" "$0" "$@"
fi
exec "$python" "$0" "$@"
'''
try:
    from MODULE import main
except ModuleNotFoundError as error:
    if not "MODULE.".startswith(f"{error.name}."):
        raise
    import sys

    sys.exit(f"PROGRAM: shardmesh is not installed for {sys.executable}; install it into a virtual environment")
main()

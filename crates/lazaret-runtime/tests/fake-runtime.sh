#!/bin/sh
# Stands in for runc: records what it is given under $RECORD and ends as $END says. Committed, not written by the tests
# (ETXTBSY).
printf '%s\0' "$@" >"$RECORD/words"
/usr/bin/env -0 | /usr/bin/sort -z >"$RECORD/environment"
pwd >"$RECORD/directory"
echo $$ >"$RECORD/pid"
/bin/cat >"$RECORD/input"
echo "output of the runtime"
echo "complaint of the runtime" >&2
case "$END" in
signal) kill -TERM $$ ;;
*) exit "$END" ;;
esac

# Runs a private Postgres for as long as standard input stays open, then removes every trace.
#
# Standard input is a pipe whose other end only Postern holds. It closes when Postern ends, in
# whatever way: return, panic, Ctrl-C or SIGKILL. POSIX sh, no other program than rm.
#
# $1 initdb  $2 postgres  $3 private folder  $4 socket folder (inside $3 or apart)
# after that: arguments for postgres.
initdb=$1 postgres=$2 folder=$3 sockets=$4
shift 4
child= closing=
umask 077
# SIGQUIT is the quick shutdown of Postgres: it bounds itself and keeps nothing.
close() {
    closing=yes
    [ -z "$child" ] || kill -QUIT "$child" 2>/dev/null
}
trap close TERM
trap '' INT HUP
ulimit -c 0

exec 3<&0
(
    trap - TERM
    read -r _ <&3
    kill -TERM $$
) &
listener=$!

# Waits for the child to end, however often a signal interrupts the wait.
attend() {
    [ -z "$closing" ] || kill -QUIT "$child" 2>/dev/null
    while :; do
        wait "$child"
        status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=
}

make_cluster() {
    "$initdb" -D "$folder/data" -U postgres -A trust -E UTF8 "--locale=$1" \
        --no-sync --no-instructions --wal-segsize=1 3<&- >"$folder/log" 2>&1 &
    child=$!
    attend
    [ "$status" -eq 0 ]
}

# C.UTF-8 knows upper and lower case beyond ASCII; not every system has it.
if make_cluster C.UTF-8 || { [ -z "$closing" ] && rm -rf "$folder/data" && make_cluster C; }; then
    if [ -z "$closing" ]; then
        "$postgres" -D "$folder/data" "$@" 3<&- >"$folder/log" 2>&1 &
        child=$!
        attend
    fi
fi

# It ended by itself: Postern reads the log before it closes its end.
if [ -z "$closing" ]; then
    echo "$status" >"$folder/ended"
    while [ -z "$closing" ]; do wait "$listener"; done
fi
kill "$listener" 2>/dev/null
for attempt in 1 2 3; do
    rm -rf "$folder" "$sockets" 2>/dev/null && break
done

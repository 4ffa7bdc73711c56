# Runs a private Postgres for as long as standard input stays open, then removes every trace.
#
# Standard input is a pipe whose other end only Postern holds. It closes when Postern ends, in
# whatever way: return, panic, Ctrl-C or SIGKILL. POSIX sh, no other programs than rm and sleep.
#
# $1 initdb  $2 postgres  $3 private folder  $4 socket folder (inside $3 or apart)
# after that: arguments for postgres.
initdb=$1 postgres=$2 folder=$3 sockets=$4
shift 4
child= serving= closing= insisting=
umask 077
# As long as this process lives, no later run touches the folder.
echo $$ >"$folder/supervisor"

# SIGQUIT is the quick shutdown of Postgres: it bounds itself and keeps nothing. A shell starts
# its children with SIGQUIT ignored, so until Postgres is ready for it SIGTERM does the work; and
# what arrives at a bad moment is sent again.
insist() {
    nap=
    trap '[ -z "$nap" ] || kill "$nap"; exit' TERM
    while kill -TERM "$child" && kill -QUIT "$child"; do
        sleep 1 &
        nap=$!
        wait "$nap"
    done
}

# initdb is left to finish, in less than a second: cut short, it leaves shared memory behind.
close() {
    closing=yes
    if [ -n "$serving" ] && [ -z "$insisting" ]; then
        insist 2>/dev/null &
        insisting=$!
    fi
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
    [ -z "$closing" ] || close
    while :; do
        wait "$child"
        status=$?
        kill -0 "$child" 2>/dev/null || break
    done
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
        child=$! serving=yes
        attend
        serving=
        [ -z "$insisting" ] || kill "$insisting" 2>/dev/null
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

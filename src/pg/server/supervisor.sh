# Runs a private Postgres for as long as somebody is there, then removes every trace.
#
# Standard input is the life line: a pipe whose other ends only Postern's processes hold. It is
# at its end when all of them have ended, in whatever way: return, panic, Ctrl-C or SIGKILL. For
# a shared server it is a named pipe, to which later processes join themselves.
# POSIX sh, no other programs than rm and sleep.
#
# $1 postgres  $2 private folder  $3 socket folder (inside $2 or apart)
# $4 how many seconds a shared server waits for somebody else; empty for one that is not shared
# after that: arguments for postgres.
postgres=$1 folder=$2 sockets=$3 linger=$4
shift 4
child= serving= closing= insisting= listener=
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
        nap 1
    done
}

# Sleeps in a way that a signal ends at once.
nap() {
    sleep "$1" 3<&- &
    nap=$!
    wait "$nap"
    nap=
}

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

# Whether a folder holds anything.
holds() {
    for mark in "$1"/*; do
        [ -e "$mark" ] && return 0
    done
    return 1
}

# Returns once nobody is there and nothing is kept for anybody.
listen() {
    while :; do
        # Whoever joins writes a line.
        while read -r _ <&3; do :; done
        # Until others are told of it, nobody else comes.
        [ -e "$folder/shared" ] || return
        nap "$linger"
        # What failed tests kept stays for an hour, what was named for as long as it is named.
        rounds=0
        while kill -0 $$ 2>/dev/null &&
            { holds "$folder/named" || { holds "$folder/kept" && [ $rounds -lt 1800 ]; }; }; do
            rounds=$((rounds + 1))
            nap 2
        done
        # Whoever joins from here on sees the mark and waits. Whoever joined before it was set has
        # written a line by now or is about to; only the end of the life line means nobody.
        # (`:` would end this shell where the folder is gone.)
        true >"$folder/closing" || return
        read -r _ <&3 || return
        rm -f "$folder/closing"
    done
}

# Waits for the child to end, however often a signal interrupts the wait.
attend() {
    [ -z "$closing" ] || close
    while :; do
        wait "$child"
        status=$?
        kill -0 "$child" 2>/dev/null || break
    done
}

# The first line says that the data is in place. Without it there is nothing to run.
if read -r _ && [ -z "$closing" ]; then
    exec 3<&0
    (
        nap=
        trap '[ -z "$nap" ] || kill "$nap"; exit' TERM
        listen
        kill -TERM $$
    ) &
    listener=$!
    "$postgres" -D "$folder/data" "$@" 3<&- >"$folder/log" 2>&1 &
    child=$! serving=yes
    attend
    serving=
    [ -z "$insisting" ] || kill "$insisting" 2>/dev/null
    # It ended by itself: Postern reads the log before it closes its end.
    if [ -z "$closing" ]; then
        echo "$status" >"$folder/ended"
        while [ -z "$closing" ] && kill -0 "$listener" 2>/dev/null; do wait "$listener"; done
    fi
    kill "$listener" 2>/dev/null
fi
# The way in goes before the mark that it is closed.
rm -f "$folder/life"
for attempt in 1 2 3; do
    rm -rf "$folder" "$sockets" 2>/dev/null && break
done

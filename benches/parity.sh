#!/bin/bash
# Content parity of two databases against the bare hash queries and against reladiff, in the same run.
#
#   benches/parity.sh [ROWS]          on a server of its own, removed at the end
#
# 5 million rows of 8 columns in each database. The baseline is one hand-written hash query per
# database, both at the same time, each with the parallel workers that the server gives it: nobody
# who has two databases to ask would wait for the first. One after the other is shown beside it.
# With 25 differences (5 rows missing, 5 extra, 15 changed) every tool must find and name all of them.
# Each time is the best of RUNS (default 3; RELADIFF_RUNS, default 1, for the slow one). POSTERN
# (default target/release/postern) is the program measured. RELADIFF names one that is installed;
# otherwise pip installs it into a temporary folder, and without it the bench says so and goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-5000000}
runs=${RUNS:-3}
postern=$(realpath "${POSTERN:-target/release/postern}")
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
bin=${bin:-$(pg_config --bindir)}
base=/dev/shm
[ -w "$base" ] || base=/tmp
own=$(mktemp -d "$base/parity-bench-XXXXXX")
folder=$(mktemp -d "${TMPDIR:-/tmp}/parity-bench-XXXXXX")
# Postgres refuses to run as root.
as() {
  if [ "$(id -u)" = 0 ]; then su postgres -s /bin/sh -c 'exec "$@"' -- sh "$@"; else "$@"; fi
}
cleanup() {
  as "$bin/pg_ctl" -D "$own/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$own" "$folder"
}
trap cleanup EXIT
[ "$(id -u)" != 0 ] || chown postgres "$own"
as "$bin/initdb" -D "$own/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >/dev/null
as "$bin/pg_ctl" -D "$own/data" -l "$own/log" -w start \
  -o "-k $own -c listen_addresses= -c fsync=off -c max_wal_size=4GB" >/dev/null
url() { echo "postgres://postgres@localhost/$1?host=$own&sslmode=disable"; }
sql() { psql -qXAt -v ON_ERROR_STOP=1 "$(url "$1")" "${@:2}"; }

reladiff=${RELADIFF:-}
if [ -z "$reladiff" ]; then
  if python3 -m venv "$folder/venv" >"$folder/pip.log" 2>&1 &&
    "$folder/venv/bin/pip" install -q 'reladiff[postgresql]' >>"$folder/pip.log" 2>&1; then
    reladiff=$folder/venv/bin/reladiff
  else
    echo "reladiff could not be installed:"
    tail -3 "$folder/pip.log"
  fi
fi

sql postgres -c 'create database ours'
sql ours <<SQL
create table orders (id bigint primary key, customer_id int not null, status text, amount numeric(10, 2), quantity int,
  email text, placed_at timestamptz, note text);
insert into orders select g, 1 + (g::bigint * 7919) % 100000, (array['new', 'paid', 'sent', 'done'])[1 + g % 4],
  (g % 10000) / 100.0, 1 + g % 20, 'user' || g || '@example.org',
  '2024-01-01'::timestamptz + g * interval '5 seconds', case when g % 10 > 0 then 'note ' || g % 1000 end
  from generate_series(1, $rows) g;
vacuum analyze;
SQL
sql postgres -c 'create database same template ours strategy file_copy' \
  -c 'create database theirs template ours strategy file_copy'
# Spread over all keys; the five rows that only theirs has are behind the last.
sql theirs <<SQL
delete from orders where id in (select $rows / 6 * g + 17 from generate_series(1, 5) g);
insert into orders select $rows + g, 1, 'new', 1, 1, 'x', '2024-01-01', null from generate_series(1, 5) g;
update orders set note = 'changed' where id in (select $rows / 7 * g + 1 from generate_series(1, 5) g);
update orders set amount = amount + 1 where id in (select $rows / 8 * g + 2 from generate_series(1, 5) g);
update orders set status = 'gone', quantity = 0 where id in (select $rows / 9 * g + 3 from generate_series(1, 5) g);
vacuum analyze orders;
SQL

gate() { printf '[[gate]]\nid = "parity"\nkind = "content_parity"\ntable = "orders"\nagainst = "orders"\nagainst_target = "other"\n'; }
gate >"$folder/parity.toml"
hash='set jit = off; select count(*), sum(hash_record_extended(row(id, customer_id, status, amount, quantity, email, placed_at, note), 0)) from orders'
both() {
  sql ours -c "$hash" &
  local first=$!
  sql same -c "$hash" && wait "$first"
}
in_turn() { sql ours -c "$hash" && sql same -c "$hash"; }
# Seen from ours: rows that only theirs has are missing.
check() { "$postern" check --gates "$folder/parity.toml" --url "$(url ours)" --other "other=$(url "$1")"; }
equal() { check same; }
differing() {
  local code=0
  check theirs >"$folder/said" || code=$?
  local named
  named=$(grep -cE '^ +.*(missing|extra|changed) id=[0-9]+' "$folder/said")
  if [ "$code" != 1 ] || [ "$named" != 25 ] ||
    ! grep -q '25 rows differ: 5 missing, 5 extra, 15 changed' "$folder/said"; then
    cat "$folder/said"
    return 1
  fi
}
diff() {
  # All columns; a changed row is a line on either side.
  # It takes no socket from an address, but libpq does from its environment.
  PGHOST=$own "$reladiff" "postgresql://postgres@/$1" orders "postgresql://postgres@/$2" orders -k id -c '%' \
    >"$folder/lines" 2>"$folder/errors" || { cat "$folder/errors"; return 1; }
}
diff_differing() {
  diff ours theirs
  local named
  named=$(grep -cE '^[+-] [0-9]+' "$folder/lines")
  [ "$named" = 40 ] || { head -50 "$folder/lines"; echo "reladiff named $named lines, not 40"; return 1; }
}
diff_equal() { diff ours same && [ ! -s "$folder/lines" ]; }

declare -A best
measure() {
  local name=$1 begun took
  shift
  begun=$(date +%s%N)
  "$@" >"$folder/out" || { cat "$folder/out"; exit 1; } >&2
  took=$((($(date +%s%N) - begun) / 1000000))
  if [ -z "${best[$name]:-}" ] || [ "$took" -lt "${best[$name]}" ]; then best[$name]=$took; fi
}
# In turns, so that what else the machine does falls on all alike.
for run in $(seq "$runs"); do
  measure both both
  measure in_turn in_turn
  measure equal equal
  measure differing differing
  if [ -n "$reladiff" ] && [ "$run" -le "${RELADIFF_RUNS:-1}" ]; then
    measure diff_differing diff_differing
    measure diff_equal diff_equal
  fi
done

report() {
  local of=${best[$2]} by=${best[$3]}
  printf '%-40s %6d ms  %5s of %s\n' "$1" "$of" "$(awk -v a="$of" -v b="$by" 'BEGIN { printf "%.2f", a / b }')" "$4"
}
echo "$rows rows in each of two databases, $(nproc) cores, best of $runs, $postern"
report 'two hash queries, both at once' both both itself
report 'two hash queries, one after the other' in_turn both 'both at once'
report 'content_parity, equal' equal both 'both at once'
report 'content_parity, 25 differing rows' differing both 'both at once'
if [ -n "$reladiff" ]; then
  report "reladiff, equal" diff_equal equal 'content_parity, equal'
  report "reladiff, 25 differing rows" diff_differing differing 'content_parity, 25 differing rows'
fi

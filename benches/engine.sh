#!/bin/bash
# The gate engine against the best hand-written SQL for the same facts, in the same run.
#
#   benches/engine.sh [ROWS]          on a server of its own, removed at the end
#   URL=postgres://… benches/engine.sh      in a schema `engine_bench` of a database that is there
#
# 5 million rows of 8 columns. `hand` is one psql session: one fused scan, one GROUP BY per key, one
# anti-join. Each time is the best of RUNS (default 5). The same over 20 thousand rows, where it is all start and end.
# `flawed` is a fifth of the rows with a few that offend each of 8 gates: counted alone, then named, 5 of each.
# CONNECTIONS="1 2 3" and SETTINGS="work_mem=64MB …" (for the role) measure these, too. POSTERN (default target/release/postern, else target/debug/postern) is the program measured.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-5000000}
runs=${RUNS:-5}
postern=${POSTERN:-target/release/postern}
[ -x "$postern" ] || postern=target/debug/postern
folder=$(mktemp -d "${TMPDIR:-/tmp}/engine-bench-XXXXXX")
own=
cleanup() {
  if [ -n "$own" ]; then
    as "$bin/pg_ctl" -D "$own/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$own"
  else
    psql -qX "$URL" -c 'drop schema if exists engine_bench, engine_bench_small cascade' || true
  fi
  rm -rf "$folder"
}
# Postgres refuses to run as root.
as() {
  if [ "$(id -u)" = 0 ]; then su postgres -s /bin/sh -c 'exec "$@"' -- sh "$@"; else "$@"; fi
}
trap cleanup EXIT
if [ -n "${URL:-}" ] && [ -n "${SETTINGS:-}" ]; then
  echo "SETTINGS are set for a role: only on a server of its own" >&2
  exit 2
fi
if [ -z "${URL:-}" ]; then
  bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  bin=${bin:-$(pg_config --bindir)}
  base=/dev/shm
  [ -w "$base" ] || base=/tmp
  own=$(mktemp -d "$base/engine-bench-XXXXXX")
  [ "$(id -u)" != 0 ] || chown postgres "$own"
  as "$bin/initdb" -D "$own/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >/dev/null
  as "$bin/pg_ctl" -D "$own/data" -l "$own/log" -w start \
    -o "-k $own -c listen_addresses= -c fsync=off -c shared_buffers=${SHARED_BUFFERS:-128MB} -c max_wal_size=4GB" >/dev/null
  URL="postgres://postgres@localhost/postgres?host=$own&sslmode=disable"
fi

# The tables in a schema of so many rows.
tables() {
  psql -qX -v ON_ERROR_STOP=1 "$URL" <<SQL
set client_min_messages = warning;
drop schema if exists $1 cascade;
create schema $1;
set search_path = $1;
create table customers (id int primary key, name text not null);
insert into customers select g, 'c' || g from generate_series(1, 100000) g;
create table orders (id bigint primary key, customer_id int not null, status text, amount numeric(10, 2), quantity int,
  email text, placed_at timestamptz, note text);
insert into orders select g, 1 + (g::bigint * 7919) % 100000, (array['new', 'paid', 'sent', 'done'])[1 + g % 4],
  (g % 10000) / 100.0, 1 + g % 20, 'user' || g || '@example.org',
  '2024-01-01'::timestamptz + g * interval '5 seconds', case when g % 10 > 0 then 'note ' || g % 1000 end
  from generate_series(1, $2) g;
vacuum analyze customers, orders;
SQL
}
tables engine_bench "$rows"
tables engine_bench_small 20000

psql -qX -v ON_ERROR_STOP=1 "$URL" <<SQL
set client_min_messages = warning;
set search_path = engine_bench;
create table flawed (like orders including all);
insert into flawed select * from orders where id <= $rows / 5;
update flawed set email = null where id % ($rows / 20) = 3;
update flawed set placed_at = null where id % ($rows / 25) = 4;
update flawed set status = 'lost' where id % ($rows / 30) = 5;
update flawed set note = 'memo' where id % ($rows / 35) = 6;
update flawed set amount = 100.5, quantity = 30 where id % ($rows / 40) = 7;
update flawed set customer_id = 0 where id % ($rows / 45) = 8;
vacuum analyze flawed;
SQL

gate() { printf '[[gate]]\nid = "g%02d"\n%b\n' "$n" "$1"; n=$((n + 1)); }
t='table = "engine_bench.orders"\n'
n=1
{
  gate "kind = \"row_count\"\n${t}at_least = $rows"
  for column in id customer_id status amount quantity email placed_at; do
    gate "kind = \"completeness\"\n${t}columns = [\"$column\"]"
  done
  gate "kind = \"completeness\"\n${t}columns = [\"note\"]\nat_least = \"80%\""
  gate "kind = \"completeness\"\n${t}columns = [\"status\", \"amount\"]\nmissing = [\"\", \"n/a\"]"
  gate "kind = \"range\"\n${t}column = \"amount\"\nmin = 0\nmax = 100"
  gate "kind = \"range\"\n${t}column = \"quantity\"\nmin = 1\nmax = 20"
  gate "kind = \"range\"\n${t}column = \"id\"\nmin = 1"
  gate "kind = \"accepted_values\"\n${t}column = \"status\"\nvalues = [\"new\", \"paid\", \"sent\", \"done\"]"
  gate "kind = \"pattern\"\n${t}column = \"note\"\nregex = \"^note [0-9]+$\""
  gate "kind = \"relation\"\n${t}left = \"amount\"\nop = \"<=\"\nright = \"quantity * 100\""
  gate "kind = \"row_count\"\n${t}where = \"status = 'done'\"\nat_least = 1"
  gate "kind = \"freshness\"\n${t}column = \"placed_at\"\nmax_age = \"9999d\"\nas_of = \"2026-01-01T00:00:00Z\""
  gate "kind = \"unique\"\n${t}columns = [\"id\"]"
  gate "kind = \"foreign_key\"\n${t}columns = [\"customer_id\"]\nreferences = \"engine_bench.customers\""
} >"$folder/twenty.toml"

n=1
{
  t='table = "engine_bench.flawed"\n'
  gate "kind = \"completeness\"\n${t}columns = [\"email\"]"
  gate "kind = \"completeness\"\n${t}columns = [\"placed_at\"]"
  gate "kind = \"accepted_values\"\n${t}column = \"status\"\nvalues = [\"new\", \"paid\", \"sent\", \"done\"]"
  gate "kind = \"pattern\"\n${t}column = \"note\"\nregex = \"^note [0-9]+$\""
  gate "kind = \"range\"\n${t}column = \"amount\"\nmin = 0\nmax = 100"
  gate "kind = \"range\"\n${t}column = \"quantity\"\nmin = 1\nmax = 20"
  gate "kind = \"range\"\n${t}column = \"customer_id\"\nmin = 1"
  gate "kind = \"relation\"\n${t}left = \"customer_id\"\nop = \">\"\nright = \"quantity * 0\""
} >"$folder/flawed.toml"
t='table = "engine_bench.orders"\n'

small() { sed -e 's/engine_bench/engine_bench_small/g' -e "s/at_least = $rows/at_least = 20000/" "$folder/$1" >"$folder/small_$1"; }
small twenty.toml

n=1
columns() {
  for i in $(seq "$1"); do
    case $((i % 4)) in
      0) gate "kind = \"range\"\n${t}column = \"quantity\"\nmin = -$i\nmax = 20" ;;
      1) gate "kind = \"range\"\n${t}column = \"id\"\nmin = -$i" ;;
      2) gate "kind = \"accepted_values\"\n${t}column = \"status\"\nvalues = [\"new\", \"paid\", \"sent\", \"done\", \"x$i\"]" ;;
      3) gate "kind = \"completeness\"\n${t}columns = [\"email\", \"placed_at\", \"quantity\"]\nat_least = $i" ;;
    esac
  done
}
columns 50 >"$folder/fifty.toml"

# Without compilation, which costs more than it saves here; the server's own settings otherwise.
cat >"$folder/settings.sql" <<SQL
set jit = off;
set search_path = engine_bench;
begin isolation level repeatable read read only;
SQL
cat "$folder/settings.sql" - >"$folder/hand.sql" <<'SQL'
select count(*), count(id), count(customer_id), count(status), count(amount), count(quantity), count(email),
  count(placed_at), count(note),
  count(*) filter (where status is null or amount is null or status in ('', 'n/a') or amount::text in ('', 'n/a')),
  count(*) filter (where amount not between 0 and 100), count(*) filter (where quantity not between 1 and 20),
  count(*) filter (where id < 1), count(*) filter (where status not in ('new', 'paid', 'sent', 'done')),
  count(*) filter (where note !~ '^note [0-9]+$'), count(*) filter (where not amount <= quantity * 100),
  count(*) filter (where status = 'done'), max(placed_at)
from orders;
select coalesce(sum(n), 0), count(*)
  from (select count(*) n from orders where id is not null group by id having count(*) > 1) d;
select count(*) from orders o where customer_id is not null
  and not exists (select from customers c where c.id = o.customer_id);
SQL
small hand.sql

# In turns, so that what else the machine does falls on all alike.
declare -A best
measure() {
  local name=$1 begun took
  shift
  begun=$(date +%s%N)
  "$@" >"$folder/out" || { cat "$folder/out"; exit 1; } >&2
  took=$((($(date +%s%N) - begun) / 1000000))
  if [ -z "${best[$name]:-}" ] || [ "$took" -lt "${best[$name]}" ]; then best[$name]=$took; fi
}
check() { "$postern" check --url "$URL" --gates "$folder/$1.toml" "${@:2}"; }
# With gates that fail, as they must.
fails() { local code=0; check "$@" || code=$?; [ "$code" = 1 ]; }
for _ in $(seq "$runs"); do
  measure hand psql -qX -v ON_ERROR_STOP=1 "$URL" -f "$folder/hand.sql"
  measure scan check twenty --scan
  measure proof check twenty
  measure fifty check fifty --scan
  measure counted fails flawed --scan --examples 0
  measure named fails flawed --scan --examples 5
  for n in ${CONNECTIONS:-}; do measure "scan$n" check twenty --scan --connections "$n"; done
  for setting in ${SETTINGS:-}; do
    psql -qX "$URL" -c "alter role current_user set ${setting%%=*} = '${setting#*=}'"
    measure "$setting" check twenty --scan
    psql -qX "$URL" -c "alter role current_user reset ${setting%%=*}"
  done
  for _ in 1 2 3 4; do
    measure small_hand psql -qX -v ON_ERROR_STOP=1 "$URL" -f "$folder/small_hand.sql"
    measure small_scan check small_twenty --scan
  done
done
# In kB; the largest of the run over the large table.
memory=
if [ -x /usr/bin/time ]; then
  /usr/bin/time -o "$folder/memory" -f %M "$postern" check --url "$URL" --gates "$folder/twenty.toml" --scan >"$folder/out"
  memory=$(cat "$folder/memory")
elif command -v python3 >/dev/null; then
  memory=$(python3 -c 'import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)' "$postern" check --url "$URL" --gates "$folder/twenty.toml" --scan)
fi

report() {
  local of=${best[$2]} by=${best[$3]}
  printf '%-28s %6d ms  %s of %s\n' "$1" "$of" "$(awk -v a="$of" -v b="$by" 'BEGIN { printf "%.2f", a / b }')" "$4"
}
echo "$rows rows, $(nproc) cores, best of $runs, $postern"
report "hand-written, one session" hand hand itself
report "20 gates, --scan" scan hand hand-written
for n in ${CONNECTIONS:-}; do report "  on $n connections" "scan$n" hand hand-written; done
for setting in ${SETTINGS:-}; do report "  with $setting" "$setting" hand hand-written; done
report "20 gates, proofs allowed" proof hand hand-written
report "50 column gates, --scan" fifty scan "20 gates, --scan"
report "8 failing gates, counted" counted counted itself
report "8 failing gates, 5 rows each" named counted "counted alone"
report "20,000 rows, hand-written" small_hand small_hand itself
report "20,000 rows, 20 gates" small_scan small_hand "hand-written, process start to exit"
echo "peak memory of 20 gates        ${memory:+$((memory / 1024)) MB}"

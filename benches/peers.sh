#!/bin/bash
# The same facts asked by Postern and by its peers: Soda, dbt and pgTAP for checks, reladiff for parity.
#
#   benches/peers.sh [ROWS]           on a server of its own, removed at the end
#
# 20 checks of a table of 8 columns (default 1 million rows, at least 10,000) in which six things are
# wrong: 3 emails are missing, 2 statuses are unknown, 5 notes are in no known form, 6 amounts are too
# large, 1 id is there twice and 4 customers do not exist. And a table with its copy in another database,
# where 25 rows spread over all keys differ. No constraint proves anything about the table of the checks.
# Every tool must count what was planted; what it counted is printed beside its time.
#
# A time is from process start to exit: the best of RUNS (default 3) after one run that is not timed, so
# that data and files are in memory and dbt has parsed its project. ROWS of 10000 show what is all start
# and end. To the peers' advantage: the server compiles no query (Postern would do without anyway), dbt and
# reladiff get a thread for each core, pgTAP has no runner but psql, and nobody sends statistics home.
#
# Postern names rows that offend beside their number; dbt and pgTAP only count, as `counts` does, which is
# Postern with --examples 0.
#
# pip and apt install the peers into a temporary folder, in the newest versions that these give. One that
# cannot be installed, or that counts something else, is told and left at that: only Postern's own count
# makes the exit code 1. VENVS names a folder where Python's environments stay for the next time. POSTERN
# (default target/release/postern, else target/debug/postern) is the program measured. LIMIT (default 900)
# is how many seconds a run may take.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-1000000}
if [ "$rows" -lt 10000 ]; then
  echo "at least 10000 rows" >&2
  exit 2
fi
runs=${RUNS:-3}
limit=${LIMIT:-900}
postern=${POSTERN:-target/release/postern}
[ -x "$postern" ] || postern=target/debug/postern
postern=$(realpath "$postern")
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
bin=${bin:-$(pg_config --bindir)}
base=/dev/shm
[ -w "$base" ] || base=/tmp
own=$(mktemp -d "$base/peers-bench-XXXXXX")
folder=$(mktemp -d "${TMPDIR:-/tmp}/peers-bench-XXXXXX")
# Postgres refuses to run as root.
as() {
  if [ "$(id -u)" = 0 ]; then su postgres -s /bin/sh -c 'exec "$@"' -- sh "$@"; else "$@"; fi
}
cleanup() {
  as "$bin/pg_ctl" -D "$own/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$own" "$folder"
}
trap cleanup EXIT
unset PGHOSTADDR PGSERVICE PGOPTIONS PGPASSWORD PGSSLMODE
export PGHOST=$own PGPORT=5432 PGUSER=postgres PGDATABASE=ours DO_NOT_TRACK=1
[ "$(id -u)" != 0 ] || chown postgres "$own"
as "$bin/initdb" -D "$own/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >/dev/null
as "$bin/pg_ctl" -D "$own/data" -l "$own/log" -w start \
  -o "-k $own -c listen_addresses= -c fsync=off -c jit=off -c autovacuum=off -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=256MB" >/dev/null
url() { echo "postgres://postgres@localhost/$1?host=$own&sslmode=disable"; }
sql() { psql -qXAt -v ON_ERROR_STOP=1 "$@"; }

sql -d postgres -c 'create database ours' -c 'create database left_side'
fill="insert into orders select g, 1 + g % 1000, (array['new', 'paid', 'sent', 'done'])[1 + g % 4], (g % 10000) / 100.0,
  1 + g % 20, 'user' || g || '@example.org', '2024-01-01'::timestamptz + g * interval '5 seconds', 'note ' || g % 1000
  from generate_series(1, $rows) g"
sql <<SQL
create table customers (id int primary key, name text not null);
insert into customers select g, 'c' || g from generate_series(1, 1000) g;
create table orders (id bigint, customer_id int, status text, amount numeric(10, 2), quantity int, email text,
  placed_at timestamptz, note text);
$fill;
update orders set email = null where id in (10, $rows / 2, $rows);
update orders set status = 'lost' where id = 40;
update orders set status = 'torn' where id = $rows / 3;
update orders set note = 'memo' where id in (select $rows / 6 * g + 1 from generate_series(1, 5) g);
update orders set amount = 100.5, quantity = 20 where id in (select $rows / 7 * g + 3 from generate_series(1, 6) g);
update orders set customer_id = 5000 + id % 7 where id in (60, 61, 62, $rows - 1);
update orders set id = 100 where id = $rows / 4;
vacuum analyze;
SQL
sql -d left_side <<SQL
create table orders (id bigint primary key, customer_id int not null, status text, amount numeric(10, 2), quantity int,
  email text, placed_at timestamptz, note text);
$fill;
vacuum analyze;
SQL
sql -d postgres -c 'create database right_side template left_side strategy file_copy'
# The five rows that only the right has are behind the last.
sql -d right_side <<SQL
delete from orders where id in (select $rows / 6 * g + 17 from generate_series(1, 5) g);
insert into orders select $rows + g, 1, 'new', 1, 1, 'x', '2024-01-01', null from generate_series(1, 5) g;
update orders set note = 'changed' where id in (select $rows / 7 * g + 1 from generate_series(1, 5) g);
update orders set amount = amount + 1 where id in (select $rows / 8 * g + 2 from generate_series(1, 5) g);
update orders set status = 'gone', quantity = 0 where id in (select $rows / 9 * g + 3 from generate_series(1, 5) g);
vacuum analyze orders;
SQL
planted='amount=6 email=3 id=1 note=5 orphans=4 status=2'
planted_parity='changed=15 extra=5 missing=5'

notes=()
venvs=$(realpath -m "${VENVS:-$folder}")
mkdir -p "$venvs"
# Puts packages into an environment of their own; only what is built already.
install() {
  local name=$1 log=$folder/$1.log
  shift
  [ ! -x "$venvs/$name/bin/$name" ] || return 0
  if python3 -m venv "$venvs/$name" >"$log" 2>&1 &&
    "$venvs/$name/bin/pip" install -q --only-binary :all: "$@" >>"$log" 2>&1; then
    return 0
  fi
  notes+=("$name could not be installed: $(grep -v '^$' "$log" | tail -1)")
  return 1
}
declare -A version best worst found
version_of() { "$venvs/$1/bin/python" -c 'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))' "$2" || echo '?'; }
# Names and numbers on a line, in one order.
facts() { LC_ALL=C sort | paste -sd ' '; }

# Each tool has a function that runs it and one that reads what it counted, as `fact=number`.
columns='id customer_id status amount quantity email placed_at note'
# A missing email has the name `email`; that of a column in which none is missing is not to be seen.
given() { if [ "$1" = email ]; then echo email; else echo "given_$1"; fi; }

{
  t='table = "orders"\n'
  gate() { printf '[[gate]]\nid = "%s"\n%b\n' "$1" "$2"; }
  gate rows "kind = \"row_count\"\n${t}at_least = $rows"
  gate done "kind = \"row_count\"\n${t}where = \"status = 'done'\"\nat_least = 1"
  for column in $columns; do gate "$(given "$column")" "kind = \"completeness\"\n${t}columns = [\"$column\"]"; done
  gate amount "kind = \"range\"\n${t}column = \"amount\"\nmin = 0\nmax = 100"
  gate quantity "kind = \"range\"\n${t}column = \"quantity\"\nmin = 1\nmax = 20"
  gate least_id "kind = \"range\"\n${t}column = \"id\"\nmin = 1"
  gate least_customer "kind = \"range\"\n${t}column = \"customer_id\"\nmin = 1"
  gate status "kind = \"accepted_values\"\n${t}column = \"status\"\nvalues = [\"new\", \"paid\", \"sent\", \"done\"]"
  gate note "kind = \"pattern\"\n${t}column = \"note\"\nregex = \"^note [0-9]+\$\""
  gate address "kind = \"pattern\"\n${t}column = \"email\"\nregex = \"@\""
  gate fits "kind = \"relation\"\n${t}left = \"amount\"\nop = \"<=\"\nright = \"quantity * 100\""
  gate id "kind = \"unique\"\n${t}columns = [\"id\"]"
  gate orphans "kind = \"foreign_key\"\n${t}columns = [\"customer_id\"]\nreferences = \"customers\""
} >"$folder/checks.toml"
version[postern]=$("$postern" --version | sed 's/.* //')
version[parity]=${version[postern]}
version[counts]=${version[postern]}
postern() { timeout "$limit" "$postern" check --scan --gates "$folder/checks.toml" --url "$(url ours)" "$@"; }
counts() { postern --examples 0; }
found_counts() { found_postern counts; }
found_postern() {
  local out=$folder/${1:-postern}.out
  grep -q '^20 gates: 6 failed, 14 passed' "$out" || echo 'not 14 of 20 passed'
  sed -nE -e 's/^fail +email .* in ([0-9]+) rows.*/email=\1/p; t' -e 's/^fail +id .* share ([0-9]+) keys?.*/id=\1/p; t' \
    -e 's/^[a-z]+ +([a-z_]+) +([0-9]+) of .*/\1=\2/p' "$out" | facts
}
printf '[[gate]]\nid = "parity"\nkind = "content_parity"\ntable = "orders"\nagainst = "orders"\nagainst_target = "right"\n' \
  >"$folder/parity.toml"
parity() { timeout "$limit" "$postern" check --gates "$folder/parity.toml" --url "$(url left_side)" --other "right=$(url right_side)"; }
# The rows that it names.
found_parity() { sed -nE 's/^ .* (missing|extra|changed) id=[0-9].*/\1/p' "$folder/parity.out" | sort | uniq -c | sed -E 's/ *([0-9]+) (.*)/\2=\1/' | facts; }

if install soda soda-core-postgres; then
  version[soda]=$(version_of soda soda-core-postgres)
  # It reads from there whether to send statistics.
  mkdir -p "$folder/.soda"
  printf 'send_anonymous_usage_stats: false\nuser_cookie_id: none\n' >"$folder/.soda/config.yml"
  cat >"$folder/soda.yml" <<YML
data_source bench: {type: postgres, host: $own, username: postgres, password: "", database: ours, schema: public}
YML
  {
    metric() { printf '  - %s:\n      name: %s\n' "$2" "$1"; }
    echo 'checks for orders:'
    metric rows "row_count >= $rows"
    metric done 'row_count >= 1' && echo "      filter: status = 'done'"
    for column in $columns; do metric "$(given "$column")" "missing_count($column) = 0"; done
    metric amount 'invalid_count(amount) = 0' && printf '      valid %s\n' 'min: 0' 'max: 100'
    metric quantity 'invalid_count(quantity) = 0' && printf '      valid %s\n' 'min: 1' 'max: 20'
    metric least_id 'invalid_count(id) = 0' && echo '      valid min: 1'
    metric least_customer 'invalid_count(customer_id) = 0' && echo '      valid min: 1'
    metric status 'invalid_count(status) = 0' && echo '      valid values: [new, paid, sent, done]'
    metric note 'invalid_count(note) = 0' && echo "      valid regex: '^note [0-9]+\$'"
    metric address 'invalid_count(email) = 0' && echo "      valid regex: '@'"
    metric fits 'failed rows' && echo '      fail condition: amount > quantity * 100'
    metric id 'duplicate_count(id) = 0'
    metric orphans 'values in (customer_id) must exist in customers (id)'
  } >"$folder/checks.yml"
  soda() { HOME=$folder timeout "$limit" "$venvs/soda/bin/soda" scan -d bench -c "$folder/soda.yml" "$folder/checks.yml"; }
  found_soda() {
    grep -q '^\[[0-9:]*\] 14/20 checks PASSED' "$folder/soda.out" || echo 'not 14 of 20 passed'
    sed -E 's/^\[[0-9:]+\] +//' "$folder/soda.out" |
      awk '/ \[FAILED\]$/ { name = $1 } /^(check_)?value: / && name { print name "=" $2; name = "" }' | facts
  }
fi

# Its generic tests, and a query for each fact that it has none for.
if install dbt dbt-core dbt-postgres; then
  version[dbt]=$(version_of dbt dbt-core)
  project=$folder/project
  mkdir -p "$project/models" "$project/tests"
  printf 'name: bench\nversion: "1.0.0"\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n' >"$project/dbt_project.yml"
  cat >"$project/profiles.yml" <<YML
bench:
  target: own
  outputs:
    own: {type: postgres, host: $own, port: 5432, user: postgres, password: none, dbname: ours, schema: public, threads: $(nproc)}
YML
  {
    printf 'version: 2\nsources:\n  - name: public\n    tables:\n      - name: customers\n      - name: orders\n        columns:\n'
    for column in $columns; do
      printf '          - name: %s\n            data_tests:\n              - not_null: {name: %s}\n' "$column" "$(given "$column")"
      case $column in
        id) echo '              - unique: {name: id}' ;;
        status) echo '              - accepted_values: {name: status, arguments: {values: [new, paid, sent, done]}}' ;;
        customer_id) echo "              - relationships: {name: orphans, arguments: {to: \"source('public', 'customers')\", field: id}}" ;;
      esac
    done
  } >"$project/models/sources.yml"
  query() { echo "select ${3:-*} from {{ source('public', 'orders') }} where $2" >"$project/tests/$1.sql"; }
  query rows "true having count(*) < $rows" 1
  query done "status = 'done' having count(*) < 1" 1
  query amount 'amount not between 0 and 100'
  query quantity 'quantity not between 1 and 20'
  query least_id 'id < 1'
  query least_customer 'customer_id < 1'
  query note "note !~ '^note [0-9]+\$'"
  query address "email !~ '@'"
  query fits 'amount > quantity * 100'
  dbt() { (cd "$project" && HOME=$folder timeout "$limit" "$venvs/dbt/bin/dbt" --no-use-colors test --profiles-dir .); }
  found_dbt() {
    grep -q 'Done\. PASS=14 .*ERROR=6 .*TOTAL=20' "$folder/dbt.out" || echo 'not 14 of 20 passed'
    awk '/ in test / { for (i = 1; i < NF; i++) if ($i == "test") name = $(i + 1) }
      / Got [0-9]+ result/ && name { for (i = 1; i < NF; i++) if ($i == "Got") print name "=" $(i + 1); name = "" }' "$folder/dbt.out" | facts
  }
fi

# Functions in the database; its tests are queries. Where the server has it not, those of the package are read.
tap() {
  local sharedir major
  sharedir=$("$bin/pg_config" --sharedir)
  sql -c 'create schema tap'
  if [ -e "$sharedir/extension/pgtap.control" ]; then
    sql -c 'create extension pgtap schema tap'
    return
  fi
  major=$("$bin/pg_config" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
  mkdir "$folder/pgtap"
  (
    cd "$folder/pgtap"
    apt-get download "postgresql-$major-pgtap" || { apt-get update && apt-get download "postgresql-$major-pgtap"; }
    dpkg -x postgresql-*.deb .
  ) || return
  PGOPTIONS='-c search_path=tap -c client_min_messages=warning' \
    sql -f "$(find "$folder/pgtap" -name 'pgtap--[0-9]*.sql' ! -name '*--*--*')"
}
if tap >"$folder/tap.log" 2>&1 && version[pgtap]=$(sql -c "select tap.pgtap_version()" 2>>"$folder/tap.log"); then
  {
    echo 'set search_path = public, tap; begin; select plan(20);'
    none() { echo "select is((select count(*) from orders where $2), 0::bigint, '$1');"; }
    echo "select cmp_ok((select count(*) from orders), '>=', $rows::bigint, 'rows');"
    echo "select cmp_ok((select count(*) from orders where status = 'done'), '>=', 1::bigint, 'done');"
    for column in $columns; do none "$(given "$column")" "$column is null"; done
    none amount 'amount not between 0 and 100'
    none quantity 'quantity not between 1 and 20'
    none least_id 'id < 1'
    none least_customer 'customer_id < 1'
    none status "status not in ('new', 'paid', 'sent', 'done')"
    none note "note !~ '^note [0-9]+\$'"
    none address "email !~ '@'"
    none fits 'amount > quantity * 100'
    echo "select is((select count(*) from (select id from orders where id is not null group by id having count(*) > 1) d), 0::bigint, 'id');"
    none orphans 'customer_id is not null and not exists (select from customers c where c.id = orders.customer_id)'
    echo 'select * from finish(); rollback;'
  } >"$folder/tap.sql"
  pgtap() { timeout "$limit" psql -qXAt -f "$folder/tap.sql"; }
  found_pgtap() {
    [ "$(grep -c '^ok ' "$folder/pgtap.out")" = 14 ] || echo 'not 14 of 20 passed'
    awk '/^# Failed test/ { name = $NF; gsub(/"/, "", name) } /^# +have: / { print name "=" $3 }' "$folder/pgtap.out" | facts
  }
else
  notes+=("pgtap could not be installed: $(grep -v '^$' "$folder/tap.log" | tail -1)")
fi

if install reladiff 'reladiff[postgresql]'; then
  version[reladiff]=$(version_of reladiff reladiff)
  # All columns. It takes no socket from an address, but libpq does from its environment.
  reladiff() {
    COLUMNS=1000 timeout "$limit" "$venvs/reladiff/bin/reladiff" postgresql://postgres@/left_side orders \
      postgresql://postgres@/right_side orders -k id -c '%' -j "$(nproc)"
  }
  # A changed row is a line on either side; seen from the left, rows that only the right has are missing.
  found_reladiff() {
    awk '/^[+-] [0-9]+,/ { side[$2] = side[$2] $1 }
      END { for (key in side) n[side[key] == "-" ? "extra" : side[key] == "+" ? "missing" : "changed"]++
        for (kind in n) print kind "=" n[kind] }' "$folder/reladiff.out" | facts
  }
fi

# In turns, so that what else the machine does falls on all alike. The first is not timed. That a check
# fails is an exit code of its own with most, so what was counted is looked at instead: every time.
for run in $(seq 0 "$runs"); do
  for tool in postern counts soda dbt pgtap parity reladiff; do
    [ -n "${version[$tool]:-}" ] || continue
    begun=$(date +%s%N)
    "$tool" >"$folder/$tool.out" 2>&1 || true
    took=$((($(date +%s%N) - begun) / 1000000))
    found[$tool]=$("found_$tool" || true)
    [ "$run" != 0 ] || continue
    if [ -z "${best[$tool]:-}" ] || [ "$took" -lt "${best[$tool]}" ]; then best[$tool]=$took; fi
    if [ "$took" -gt "${worst[$tool]:-0}" ]; then worst[$tool]=$took; fi
  done
done

code=0
row() { printf '%-10s %-8s %8s %8s %7s  %s\n' "$@"; }
part() { awk -v a="$1" -v b="$2" -v digits="$3" 'BEGIN { printf "%.*f", digits, a / b }'; }
line() {
  local tool=$1 wanted=$3 verdict='as planted'
  [ -n "${best[$tool]:-}" ] || return 0
  if [ "${found[$tool]}" != "$wanted" ]; then verdict="NOT as planted: $wanted"; fi
  row "${tool/parity/postern}" "${version[$tool]}" "$(part "${best[$tool]}" 1000 2)" "$(part "${worst[$tool]}" 1000 2)" \
    "$(part "${best[$tool]}" "${best[$2]}" 1)" "${found[$tool]:-nothing}  ($verdict)"
  [ "$verdict" = 'as planted' ] || tail -n 15 "$folder/$tool.out" | sed 's/^/    /'
}
echo "$rows rows, $(nproc) cores, best of $runs after one that is not timed, $("$bin/postgres" --version), $postern"
row tool version seconds worst ratio 'what it counted'
echo "20 checks of one table"
for tool in postern counts soda dbt pgtap; do line "$tool" postern "$planted"; done
echo "a table and its copy in another database"
for tool in parity reladiff; do line "$tool" parity "$planted_parity"; done
for one in "${notes[@]+"${notes[@]}"}"; do echo "$one"; done
if [ "${found[postern]}" != "$planted" ] || [ "${found[parity]}" != "$planted_parity" ]; then
  echo "postern counted something else than what was planted" >&2
  code=1
fi
exit "$code"

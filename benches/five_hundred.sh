#!/usr/bin/env bash
# 500 tests, each with a database of its own, under cargo test (one process, many threads) and
# under nextest where it is installed (a process per test); again and again, and then nothing may
# be left. Usage: benches/five_hundred.sh [REPETITIONS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

repetitions=${1:-3}
project=target/five_hundred
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export POSTERN_CACHE=$cache POSTERN_LINGER=2 CARGO_TARGET_DIR=$PWD/target

mkdir -p "$project/src" "$project/tests" "$project/migrations"
cp Cargo.lock "$project/"
cat >"$project/Cargo.toml" <<TOML
[package]
name = "five_hundred"
version = "0.0.0"
edition = "2024"

[workspace]

[dev-dependencies]
postern = { path = "../..", default-features = false }
sqlx = { version = "0.9", default-features = false, features = ["postgres", "runtime-tokio"] }
tokio = { version = "1", features = ["rt", "macros"] }
TOML
: >"$project/src/lib.rs"
for n in $(seq -w 1 30); do
    echo "create table t$n (id int primary key, name text not null); create index on t$n (name);"
done >"$project/migrations/1_tables.sql"
{
    cat <<'RUST'
async fn alone(number: i32) {
    let db = postern::TestDb::new(postern::Migrations::folder("migrations")).await.unwrap();
    let count = || async {
        sqlx::query_scalar::<_, i64>("select count(*) from t01").fetch_one(db.pool()).await.unwrap()
    };
    assert_eq!(count().await, 0, "somebody else was here");
    for id in 0..10 {
        let insert = sqlx::query("insert into t01 values ($1, $2)").bind(id);
        insert.bind(format!("test {number}")).execute(db.pool()).await.unwrap();
    }
    assert_eq!(count().await, 10);
}
RUST
    for n in $(seq 1 500); do
        echo "#[tokio::test] async fn test_$n() { alone($n).await }"
    done
} >"$project/tests/all.rs"

cd "$project"
cargo test --no-run
run() {
    local begun=$EPOCHREALTIME
    "$@" >"$cache/output" 2>&1 || { cat "$cache/output"; exit 1; }
    awk -v a="$begun" -v b="$EPOCHREALTIME" -v what="$*" 'BEGIN { printf "%-40s %.1f s\n", what, b - a }'
}
for _ in $(seq "$repetitions"); do
    run cargo test -q
    if cargo nextest --version >/dev/null 2>&1; then run cargo nextest run; fi
done

left() {
    for folder in /dev/shm/postern-shared-* "${TMPDIR:-/tmp}"/postern-shared-*; do
        if [ "$(cat "$folder/cache" 2>/dev/null)" = "$cache" ]; then echo "$folder"; fi
    done
}
for _ in $(seq 30); do
    if [ -z "$(left)" ]; then echo "nothing is left"; exit 0; fi
    sleep 1
done
echo "still there: $(left)"
exit 1

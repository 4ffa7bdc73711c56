//! The JSON schema of gate files and the reference page, both from the list of kinds.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::kinds::KINDS;
use super::{Common, OnEmpty};

/// The JSON schema of one type, with everything in place.
pub fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::default()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
}

fn object(schema: &Schema, key: &str) -> Map<String, Value> {
    schema
        .get(key)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn required(schema: &Schema) -> Vec<Value> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// The JSON schema of a gate file, for editors.
pub fn gate_file() -> Value {
    let common = of::<Common>();
    let gates: Vec<Value> = KINDS
        .iter()
        .map(|kind| {
            let own = (kind.schema)();
            let mut properties = object(&common, "properties");
            properties.insert("kind".to_owned(), json!({ "const": kind.name }));
            properties.extend(object(&own, "properties"));
            let mut needed = required(&common);
            needed.extend(required(&own));
            json!({
                "type": "object",
                "title": kind.name,
                "description": own.get("description"),
                "properties": properties,
                "required": needed,
                "additionalProperties": false,
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Postern gate file",
        "type": "object",
        "properties": {
            "include": {
                "description": "Files whose gates and variables come first, from the folder of this file; `*`, `?` and `**` match names.",
                "type": "array",
                "items": { "type": "string", "minLength": 1 }
            },
            "suite": of::<super::build::Suite>(),
            "vars": {
                "description": "Variables for `${name}` in this file and in those that include it; settings, the environment and --var override them.",
                "type": "object",
                "additionalProperties": { "type": "string" }
            },
            "readiness": of::<super::readiness::ReadinessFields>(),
            "gate": { "type": "array", "items": { "oneOf": gates } }
        },
        "additionalProperties": false
    })
}

/// How a sample is taken and judged; the formula is in `src/gate/sampling.rs`.
const SAMPLING: &str = "
## Samples

```toml
[[gate]]
id      = \"bets_settled\"
kind    = \"range\"
table   = \"s.bets\"
column  = \"stake\"
min     = 0
at_most = \"0.5%\"
sample  = \"1%\"
```

`sample` reads a share of the table's blocks (`TABLESAMPLE SYSTEM`), not a share of the rows of all blocks, which
would read them all. Rows of one block are often alike, so the blocks are what is counted as drawn, and the interval
holds whatever the order of the rows: it is that of Hoeffding (\"Probability inequalities for sums of bounded
random variables\", JASA 58, 1963, theorem 1 and section 6) for the mean of a bounded figure per block. Without
an offending row in `n` full blocks it ends at `1 - (0.025)^(1/n)`: 0.37% for a thousand blocks. One thing it takes
from the sample: the most rows that a block has.

A gate passes when the whole interval keeps its level, fails when none of it does, and warns when it passes and not
all of the interval keeps the warning level. In between the sample does not decide: the gate is errored, and the
report says what share would decide. A level of no row at all can fail by a sample and never pass, because a sample
cannot show it. The report gives the rows of the sample and the interval for all; a row that offends is named. The
same `--seed` takes the same blocks, as long as rows stay where they are. What the catalog proves is not sampled.
Views, foreign tables and tables with inheriting ones have no sample.
";

/// What holds of whole files.
const FILES: &str = r#"
## Files that include others

```toml
include = ["common.toml", "../team/*.toml"]    # above every table
```

A suite takes in other files of gates, named from its own folder: `*`, `?`, `[…]` and `**` match names as in a
shell, hidden files excepted. An entry that names no file is a mistake, and so are files that include each other.
A file is read once, however often it is named; its gates keep its own suite, `[suite]` and place, and stand
before those of the file that includes it. Ids are unique over all of them. Its `[vars]` can be used by the file
that includes it, not the other way round.

## Variables

`${name}` in any text of a gate is replaced. What `--var name=value` says holds; then `POSTERN_VAR_name` of the
environment, `[vars]` of `postern.toml`, `[vars]` of the file itself, and `[vars]` of the files that it includes.

| written | stands for |
|---|---|
| `${name}` | the variable; a mistake where it has no value |
| `${name:-text}` | the variable, or the text where it has no value or an empty one |
| `${env:NAME}`, `${env:NAME:-text}` | the same of a variable of the environment; in `[vars]`, too |
| `$${` | `${` itself |

In SQL a value stays a value: within `'…'` and `"…"` quotes in it are doubled, and outside of quotes it can be
a name, with dots or without, or a number, and nothing else; a comment is left as it is. What definitions hold is
shown in reports, so that the environment gives them no secret: a name with `PASS`, `SECRET`, `TOKEN`, `_KEY` or the
like in it is refused, and so is an address with its password.
"#;
/// What holds for the offending rows of every kind.
const OFFENDING_ROWS: &str = "
## Offending rows

A row is named by its key, and what is found in groups by the group. Values beside the key are shown only
with `postern check --values`: those of the columns in `show`, or else of the columns that the gate looks
at. Without it they are not read, whatever `show` says. A value is cut after 200 characters, rows after
64 KiB of text for one gate and 1 MiB for a report, which says so.

The values of a masked column stay in the database. It is masked when a pattern of `columns` in `[mask]` of
`postern.toml` names it (`table.column` or `schema.table.column`, `*` standing for any text), or when its
comment, or that of its table, holds the word `postern:mask`. With it are masked the same column of
partitions and of what they are partitions of, columns with a foreign key on it or generated from it, and the
columns of a view that reads its table, but for those with the name of another column that the view reads.

In a key, `[masked 0d21a9100b6f040e]` stands in place of a masked value, the same for equal values of one
run and another in the next; elsewhere it is `[masked]`. A null stays null. Of a `sql` gate that reads a
table with a masked column, only those columns are shown that have the name of an unmasked column of such
a table: do not give one to an expression over masked columns. Where a column is masked, messages of the
server that may quote a value are withheld. Figures are told, such as numbers of rows and the age of the
newest, and so is what a definition or Postern itself looks for.
";

/// The reference page of all kinds, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Gates\n\nEvery `.toml` file here is a suite of gates, every `.sql` file is one gate: the rows it \
         returns are the offending rows.\nThis page and `gate.schema.json` are made from the kinds \
         themselves: `postern list --reference` and `postern list --schema`.\n\n## Every gate\n\n",
    );
    table(&mut page, &of::<Common>());
    page.push_str(FILES);
    page.push_str(SAMPLING);
    page.push_str(OFFENDING_ROWS);
    page.push_str(
        "\n## Readiness\n\nOne file of a run may hold a `[readiness]` table: a verdict over many gates, as a \
         release decision asks for it.\nIt is ready when every critical issue is resolved and enough of the \
         success metrics are met; a gate that was\nskipped or errored holds nothing. Not ready makes the exit \
         code 1. With `--select` it is not judged.\n\n",
    );
    table(&mut page, &of::<super::readiness::ReadinessFields>());
    for kind in KINDS {
        let schema = (kind.schema)();
        let empty = match kind.on_empty {
            OnEmpty::Fail => "fails",
            OnEmpty::Skip => "is skipped",
            OnEmpty::Pass => "passes",
        };
        let description = schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        page.push_str(&format!(
            "\n## `{}`\n\n{description}\n\nWith nothing to look at it {empty}, unless `on_empty` says otherwise.\n\n",
            kind.name
        ));
        table(&mut page, &schema);
    }
    page
}

fn table(page: &mut String, schema: &Schema) {
    let needed = required(schema);
    page.push_str("| field | | meaning |\n|---|---|---|\n");
    for (name, property) in object(schema, "properties") {
        let is_required = needed
            .iter()
            .any(|field| field.as_str() == Some(name.as_str()));
        let meaning = property
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .replace('\n', " ")
            .replace('|', "\\|");
        let mark = if is_required { "required" } else { "" };
        page.push_str(&format!("| `{name}` | {mark} | {meaning} |\n"));
    }
}

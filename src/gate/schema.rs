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
            "suite": of::<super::build::Suite>(),
            "vars": {
                "description": "Variables for `${name}` in this file; settings and --var override them.",
                "type": "object",
                "additionalProperties": { "type": "string" }
            },
            "readiness": of::<super::readiness::ReadinessFields>(),
            "gate": { "type": "array", "items": { "oneOf": gates } }
        },
        "additionalProperties": false
    })
}

/// The reference page of all kinds, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Gates\n\nEvery `.toml` file here is a suite of gates, every `.sql` file is one gate: the rows it \
         returns are the offending rows.\nThis page and `gate.schema.json` are made from the kinds \
         themselves: `postern list --reference` and `postern list --schema`.\n\n## Every gate\n\n",
    );
    table(&mut page, &of::<Common>());
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

//! From a table with spans to a typed value, reporting every wrong field.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::error::{Error, nearest, one_of};

use super::SourceFile;

/// Where the fields of one definition stand.
#[derive(Clone, Debug)]
pub struct Table {
    /// What the definition is called in messages: "a `completeness` gate".
    pub what: String,
    /// Where it starts: its `[[gate]]` line or the top of the file.
    pub header: Range<usize>,
    keys: BTreeMap<String, (Range<usize>, Range<usize>)>,
    values: BTreeMap<String, serde_json::Value>,
}

/// A value that parsed but cannot be meant.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The field to point at; the definition as a whole where the field is absent.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
            help: None,
        }
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Table {
    /// The fields of `table`.
    pub fn new(what: impl Into<String>, header: Range<usize>, table: &DeTable<'_>) -> Self {
        let keys = table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), (key.span(), value.span())))
            .collect();
        let values = table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())))
            .collect();
        Self {
            what: what.into(),
            header,
            keys,
            values,
        }
    }

    /// What was written, variables replaced, by field.
    pub fn values(&self) -> &BTreeMap<String, serde_json::Value> {
        &self.values
    }

    /// The value of a field, or the definition's header.
    pub fn span(&self, field: &str) -> Range<usize> {
        match self.keys.get(field) {
            Some((_, value)) => value.clone(),
            None => self.header.clone(),
        }
    }

    /// The error for a problem.
    pub fn error(&self, file: &SourceFile, problem: &Problem) -> Error {
        let error = file.error(self.span(problem.field), problem.message.clone(), "");
        match &problem.help {
            Some(help) => error.help(help.clone()),
            None => error,
        }
    }
}

/// A value without its spans; what JSON has no word for is text.
fn plain(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => number
            .to_string()
            .parse::<i64>()
            .map_or_else(|_| number.to_string().into(), Into::into),
        DeValue::Float(number) => number.to_string().into(),
        DeValue::Boolean(is_so) => (*is_so).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| plain(item.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())))
            .collect(),
    }
}

/// Reads `table` as a `T`, or says of every field what is wrong with it.
///
/// Field names come from `T`'s JSON schema, so that they have one home. A wrong field is reported
/// and taken out, and the rest is read again, until nothing is wrong or a required field is what
/// is missing (all of those are reported up front).
pub fn read<T: DeserializeOwned + JsonSchema + 'static>(
    file: &SourceFile,
    fields: &Table,
    table: DeTable<'_>,
    also_known: &[&str],
) -> Result<T, Vec<Error>> {
    let names = field_names::<T>();
    let (known, required) = (&names.known, &names.required);
    let mut errors = Vec::new();
    for (key, (span, _)) in &fields.keys {
        if known.iter().any(|name| name == key) || also_known.contains(&key.as_str()) {
            continue;
        }
        let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
        names.extend(also_known);
        let error = file.error(
            span.clone(),
            format!("unknown field `{key}` in {}", fields.what),
            format!("expected {}", one_of(names.iter().copied())),
        );
        errors.push(match nearest(key, names.iter().copied()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    for name in required {
        if !fields.keys.contains_key(name) {
            errors.push(file.error(
                fields.header.clone(),
                format!("missing field `{name}` in {}", fields.what),
                format!("expected `{name}`"),
            ));
        }
    }
    let is_known = |key: &str| known.iter().any(|name| name == key);
    let mut table: DeTable<'_> = table
        .into_iter()
        .filter(|(key, _)| is_known(key.get_ref()))
        .collect();
    loop {
        let spanned = Spanned::new(fields.header.clone(), table.clone());
        match T::deserialize(Deserializer::from(spanned)) {
            Ok(value) if errors.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(wrong) => {
                let found = wrong.span().and_then(|span| {
                    let key = table.iter().find(|(key, value)| {
                        let (k, v) = (key.span(), value.span());
                        k == span || (v.start <= span.start && span.end <= v.end)
                    });
                    key.map(|(key, _)| (key.clone(), span))
                });
                let message = wrong.message().trim();
                match found {
                    Some((key, span)) => {
                        errors.push(wrong_value(file, key.get_ref(), span, message));
                        table.remove(&key);
                    }
                    // A missing field, reported above, or one that was taken out as wrong.
                    None => {
                        if errors.is_empty() {
                            errors.push(file.error(fields.header.clone(), message, ""));
                        }
                        break;
                    }
                }
            }
        }
    }
    errors.sort_by_key(|error| error.excerpts().first().map(|excerpt| excerpt.span.start));
    Err(errors)
}

/// "invalid type: integer `5`, expected a string" as a sentence about a field, with a guess.
fn wrong_value(file: &SourceFile, key: &str, span: Range<usize>, message: &str) -> Error {
    let (what, label) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, format!("expected {expected}")),
        None => (message, String::new()),
    };
    let error = file.error(span, format!("wrong value for `{key}`: {what}"), label);
    // serde says: unknown variant `bloc`, expected `block` or `warn`
    let mut words = message.split('`').skip(1).step_by(2);
    match (message.contains("unknown "), words.next()) {
        (true, Some(word)) => {
            let candidates: Vec<&str> = words.collect();
            match nearest(word, candidates) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error,
            }
        }
        _ => error,
    }
}

/// The names of the fields of a type.
struct FieldNames {
    known: Vec<String>,
    required: Vec<String>,
}

/// The names of all fields and of the required ones; a schema is made once per type, because making
/// it takes longer than reading a definition.
fn field_names<T: JsonSchema + 'static>() -> Arc<FieldNames> {
    static MADE: Mutex<BTreeMap<TypeId, Arc<FieldNames>>> = Mutex::new(BTreeMap::new());
    // Names are whole whatever panicked while they were held.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let names = made
        .entry(TypeId::of::<T>())
        .or_insert_with(|| Arc::new(schema_fields::<T>()));
    Arc::clone(names)
}

/// The names of all fields and of the required ones, from the JSON schema.
fn schema_fields<T: JsonSchema>() -> FieldNames {
    let schema = schemars::generate::SchemaSettings::default()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>();
    let names = |value: Option<&serde_json::Value>| -> Vec<String> {
        match value {
            Some(serde_json::Value::Object(map)) => map.keys().cloned().collect(),
            Some(serde_json::Value::Array(list)) => list
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    };
    FieldNames {
        known: names(schema.get("properties")),
        required: names(schema.get("required")),
    }
}

//! JSON against the schemas of this repository: the keywords that they use, and no others.
//!
//! Stricter than a reader has to be: a field that the schema does not know is an error.

use serde_json::Value;

/// Every difference from a part of a schema file, with its place; empty when the value is valid.
pub fn errors(file: &str, reference: &str, value: &Value) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let checker = Checker {
        root: serde_json::from_str(&text).unwrap(),
    };
    let mut errors = Vec::new();
    checker.check(checker.resolve(reference), value, "", &mut errors);
    errors
}

struct Checker {
    root: Value,
}

impl Checker {
    fn resolve(&self, reference: &str) -> &Value {
        let pointer = reference.strip_prefix('#').unwrap();
        let found = self.root.pointer(pointer);
        found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    fn is_valid(&self, schema: &Value, value: &Value) -> bool {
        let mut errors = Vec::new();
        self.check(schema, value, "", &mut errors);
        errors.is_empty()
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        let schema = schema.as_object().unwrap();
        for (keyword, rule) in schema {
            let mut wrong = |why: String| errors.push(format!("{at}: {why}"));
            let rules = || rule.as_array().unwrap().iter();
            match keyword.as_str() {
                "description" | "title" | "format" | "examples" | "default"
                | "contentMediaType" | "$schema" | "$defs" => {}
                "$ref" => self.check(self.resolve(rule.as_str().unwrap()), value, at, errors),
                "anyOf" => {
                    if !rules().any(|choice| self.is_valid(choice, value)) {
                        wrong("none of the choices".to_owned());
                    }
                }
                "oneOf" => {
                    let fitting = rules().filter(|choice| self.is_valid(choice, value));
                    match fitting.count() {
                        0 => wrong("none of the choices".to_owned()),
                        1 => {}
                        _ => wrong("more than one of the choices".to_owned()),
                    }
                }
                "enum" => {
                    if !rules().any(|choice| choice == value) {
                        wrong(format!("{value} is not one of {rule}"));
                    }
                }
                "const" => {
                    if rule != value {
                        wrong(format!("{value} is not {rule}"));
                    }
                }
                "type" => {
                    let one = [rule.clone()];
                    let types = rule.as_array().map_or(&one[..], Vec::as_slice);
                    if !types
                        .iter()
                        .any(|kind| is_of(kind.as_str().unwrap(), value))
                    {
                        wrong(format!("not {rule}"));
                    }
                }
                "minimum" | "maximum" => {
                    let (value, bound) = (value.as_f64(), rule.as_f64().unwrap());
                    let order = value.and_then(|value| value.partial_cmp(&bound));
                    match (keyword.as_str(), order) {
                        ("minimum", Some(std::cmp::Ordering::Less)) => {
                            wrong(format!("below {rule}"));
                        }
                        ("maximum", Some(std::cmp::Ordering::Greater)) => {
                            wrong(format!("above {rule}"));
                        }
                        _ => {}
                    }
                }
                "required" => {
                    for name in rules().map(|name| name.as_str().unwrap()) {
                        if value
                            .as_object()
                            .is_some_and(|fields| !fields.contains_key(name))
                        {
                            errors.push(format!("{at}: `{name}` is missing"));
                        }
                    }
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        match rule.get(name) {
                            Some(rule) => self.check(rule, value, &format!("{at}/{name}"), errors),
                            None if schema
                                .get("additionalProperties")
                                .is_some_and(Value::is_object) => {}
                            None => errors.push(format!("{at}: `{name}` is not in the schema")),
                        }
                    }
                }
                // What `properties` does not know is refused there.
                "additionalProperties" if rule.is_boolean() => {}
                "additionalProperties" => {
                    let known = schema.get("properties").unwrap_or(&Value::Null);
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if known.get(name).is_none() {
                            self.check(rule, value, &format!("{at}/{name}"), errors);
                        }
                    }
                }
                "pattern" => {
                    let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                    if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                        wrong(format!("not of the form {rule}"));
                    }
                }
                "minLength" => {
                    let length = value.as_str().map(|text| text.chars().count() as u64);
                    if length.is_some_and(|length| length < rule.as_u64().unwrap()) {
                        wrong(format!("shorter than {rule}"));
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, value, &format!("{at}/{index}"), errors);
                    }
                }
                "prefixItems" => {
                    let values = value.as_array().into_iter().flatten();
                    for (index, (value, rule)) in values.zip(rules()).enumerate() {
                        self.check(rule, value, &format!("{at}/{index}"), errors);
                    }
                }
                "minItems" | "maxItems" => {
                    let (count, bound) = (value.as_array().map(Vec::len), rule.as_u64().unwrap());
                    let is_right = count.is_none_or(|count| match keyword.as_str() {
                        "minItems" => count as u64 >= bound,
                        _ => count as u64 <= bound,
                    });
                    if !is_right {
                        wrong(format!("not {bound} items"));
                    }
                }
                other => panic!("this test does not know the keyword `{other}`: {schema:?}"),
            }
        }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("this test does not know the type `{other}`"),
    }
}

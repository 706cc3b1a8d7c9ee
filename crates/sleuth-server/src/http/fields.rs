//! Reading JSON by hand: every fault names the field, and no message repeats what it held.

use serde_json::{Map, Value};

use super::problem::Problem;

/// The fields of an object. What nobody takes is ignored, as peers send extras.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
}

/// Values, separators and braces of a body. A value takes many times the bytes of its text.
const MAX_NODES: usize = 1 << 20;

// === impl Fields ===

impl Fields {
    /// The object that a body is.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        if nodes(body) > MAX_NODES {
            let message = format!("the body has more than {MAX_NODES} values");
            return Err(Problem::too_large(None, message));
        }
        // The parser bounds depth. Its message may repeat a text, so only the place is told.
        let value = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = format!("the body is no JSON: line {line}, column {column}");
            Problem::field("body", message)
        })?;
        Self::of(value, "")
    }

    /// The object that a value is.
    pub(super) fn of(value: Value, path: &str) -> Result<Self, Problem> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map }),
            other => {
                Err(expected(if path.is_empty() { "body" } else { path }, "an object", &other))
            }
        }
    }

    /// The full path of a field.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field; `None` where it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.take(name).map(|value| text(value, &self.path(name))).transpose()
    }

    pub(super) fn switch(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(other) => Err(expected(&self.path(name), "true or false", &other)),
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(expected(&self.path(name), "a list", &other)),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let path = self.path(name);
        let Some(values) = self.list(name)? else { return Ok(None) };
        let texts = values.into_iter().enumerate();
        texts
            .map(|(n, value)| text(value, &format!("{path}[{n}]")))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// A list of texts, any of which may be null.
    pub(super) fn some_texts(
        &mut self,
        name: &str,
    ) -> Result<Option<Vec<Option<String>>>, Problem> {
        let path = self.path(name);
        let Some(values) = self.list(name)? else { return Ok(None) };
        let read = |(n, value): (usize, Value)| match value {
            Value::Null => Ok(None),
            value => text(value, &format!("{path}[{n}]")).map(Some),
        };
        values.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }
}

pub(super) fn text(value: Value, path: &str) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(expected(path, "a string", &other)),
    }
}

/// A value of another kind than it must be.
pub(super) fn expected(path: &str, wanted: &str, got: &Value) -> Problem {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Problem::field(path, format!("`{path}` must be {wanted}, not {got}"))
}

/// At least as many as the values that a parser would make of it.
fn nodes(body: &[u8]) -> usize {
    let (mut nodes, mut in_text, mut escaped) = (1, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' | b':' if !in_text => nodes += 1,
            _ => {}
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_field_and_repeats_nothing() {
        let parse = |text: &str| Fields::parse(text.as_bytes());
        let problem = parse("[]").unwrap_err();
        assert_eq!(problem.told(), (400, Some("body"), "`body` must be an object, not a list"));
        let problem = parse(r#"{"a": "secret""#).unwrap_err();
        let told = (400, Some("body"), "the body is no JSON: line 1, column 14");
        assert_eq!(problem.told(), told);
        let mut fields = parse(r#"{"a": ["x", 3], "b": "true", "c": null, "d": {}}"#).unwrap();
        let problem = fields.texts("a").unwrap_err();
        assert_eq!(problem.told(), (400, Some("a[1]"), "`a[1]` must be a string, not a number"));
        let problem = fields.switch("b").unwrap_err();
        assert_eq!(problem.told().2, "`b` must be true or false, not a string");
        assert_eq!(fields.text("c").unwrap(), None);
        assert_eq!(fields.list("d").unwrap_err().told().1, Some("d"));
        assert!(fields.list("absent").unwrap().is_none());
    }

    #[test]
    fn many_values_and_great_depth_are_refused() {
        let wide = format!("{{\"a\": [{}0]}}", "0,".repeat(MAX_NODES));
        assert_eq!(Fields::parse(wide.as_bytes()).unwrap_err().told().0, 413);
        let deep = format!("{{\"a\": {}", "[".repeat(100_000));
        assert_eq!(Fields::parse(deep.as_bytes()).unwrap_err().told().0, 400);
        let commas =
            format!("{{\"a\": \"{}\\\"{}\"}}", ",".repeat(MAX_NODES), "[".repeat(MAX_NODES));
        assert!(Fields::parse(commas.as_bytes()).is_ok(), "a text is one value");
    }
}

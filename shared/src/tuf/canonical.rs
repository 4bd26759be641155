//! Canonical JSON: the bytes that signatures are made over. Pure.
//!
//! The form is that of OLPC (<http://wiki.laptop.org/go/Canonical_JSON>), which the specification names: keys in the order
//! of their code points, nothing between tokens, whole numbers only, and in texts only `"` and `\` escaped.

use serde_json::Value;

/// Why a value has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a whole number, and only those can be signed")]
pub struct NotWhole(String);

/// The canonical form of `value`.
pub fn canonical(value: &Value) -> Result<Vec<u8>, NotWhole> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), NotWhole> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
        Value::Number(number) if number.is_i64() || number.is_u64() => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Number(number) => return Err(NotWhole(number.to_string())),
        Value::String(text) => quote(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // UTF-8 sorts as its code points do.
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                quote(name, out);
                out.push(b':');
                write(value, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_is_one_form_whatever_the_order_and_the_spaces_were() {
        let check = |value: Value, expected: &str| assert_eq!(String::from_utf8(canonical(&value).unwrap()).unwrap(), expected);
        check(json!({"b": 1, "a": [true, null, -7, u64::MAX]}), r#"{"a":[true,null,-7,18446744073709551615],"b":1}"#);
        check(serde_json::from_str(" { \"é\" : \"x\" , \"z\" : { } , \"Z\" : [ ] } ").unwrap(), r#"{"Z":[],"z":{},"é":"x"}"#);
        check(json!("a\"b\\c\nd\u{1}"), "\"a\\\"b\\\\c\nd\u{1}\"");
    }

    #[test]
    fn a_fraction_cannot_be_signed() {
        assert!(canonical(&json!({"x": [1.5]})).is_err());
        assert!(canonical(&json!(1e3)).is_err());
    }
}

//! The attributes of one tag.
//!
//! Linear in the length of the tag: the number of attributes is bounded
//! before they are compared with each other.

use super::chars::{is_char, is_name, is_space, reference};
use super::{MAX_ATTRIBUTES, MAX_NAME_BYTES, NamespaceId};
use crate::domain::Code;

/// One attribute, its value normalised; namespace declarations are not among
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The name without prefix.
    pub local: String,
    /// Its namespace; `None` when its prefix is not bound.
    pub namespace: Option<NamespaceId>,
    /// The value with references resolved and white space made spaces.
    pub value: String,
}

/// An attribute as written.
pub struct Raw<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// Splits the part of a tag behind its name.
///
/// # Errors
///
/// The rule that is broken.
pub fn split(text: &str) -> Result<Vec<Raw<'_>>, Code> {
    let mut found: Vec<Raw<'_>> = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start_matches(|c: char| c.is_ascii() && is_space(c as u8));
        if trimmed.is_empty() {
            return Ok(found);
        }
        if trimmed.len() == rest.len() {
            return Err(Code::NotWellFormed);
        }
        if found.len() == MAX_ATTRIBUTES {
            return Err(Code::LimitExceeded);
        }
        let (attribute, after) = first(trimmed)?;
        if found.iter().any(|other| other.name == attribute.name) {
            return Err(Code::NotWellFormed);
        }
        found.push(attribute);
        rest = after;
    }
}

fn first(text: &str) -> Result<(Raw<'_>, &str), Code> {
    let space = |c: char| c.is_ascii() && is_space(c as u8);
    let (name, rest) = text.split_once('=').ok_or(Code::NotWellFormed)?;
    let name = name.trim_end_matches(space);
    if name.len() > MAX_NAME_BYTES {
        return Err(Code::LimitExceeded);
    }
    if !is_name(name) {
        return Err(Code::NotWellFormed);
    }
    let rest = rest.trim_start_matches(space);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let quote = quote.ok_or(Code::NotWellFormed)?;
    let (value, rest) = rest
        .get(1..)
        .and_then(|rest| rest.split_once(quote))
        .ok_or(Code::NotWellFormed)?;
    Ok((Raw { name, value }, rest))
}

/// The value of an attribute: references resolved, white space made spaces.
///
/// # Errors
///
/// The rule that is broken.
///
/// Source: XML 1.0, section 3.3.3.
pub fn normalise(value: &str) -> Result<String, Code> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '&' => {
                let (name, after) = rest.split_once(';').ok_or(Code::NotWellFormed)?;
                out.push(reference(name)?);
                rest = after;
            }
            '<' => return Err(Code::NotWellFormed),
            '\r' => {
                rest = rest.strip_prefix('\n').unwrap_or(rest);
                out.push(' ');
            }
            '\t' | '\n' => out.push(' '),
            c if is_char(c) => out.push(c),
            _ => return Err(Code::NotWellFormed),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_split_and_normalised() {
        let found = split(" a=\"1 &amp; &#x32;\"\n b = 'x\ty' ").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].name, "b");
        assert_eq!(normalise(found[0].value).unwrap(), "1 & 2");
        assert_eq!(normalise(found[1].value).unwrap(), "x y");
        assert_eq!(normalise("a\r\nb").unwrap(), "a b");
    }

    #[test]
    fn broken_attributes_are_refused() {
        for bad in [
            "a=\"1\"",
            " a",
            " a=1",
            " a=\"1\"b=\"2\"",
            " a=\"1",
            " =\"\"",
            " 1=\"\"",
            " a=\"1\" a=\"2\"",
        ] {
            assert!(split(bad).is_err(), "{bad}");
        }
        for bad in ["<", "&", "&#1;", "&foo;", "\u{1}"] {
            assert!(normalise(bad).is_err(), "{bad}");
        }
        let many = " a=''".repeat(MAX_ATTRIBUTES + 1);
        assert!(split(&many).is_err());
    }
}

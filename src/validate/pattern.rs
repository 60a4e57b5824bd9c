//! Patterns of XML Schema as regular expressions of the `regex` crate.
//!
//! A construct that the two languages do not share is refused when the schema
//! is read, never taken for something else.
//!
//! Source: XML Schema 1.0 part 2, appendix F.

use regex::Regex;
use std::iter::Peekable;
use std::str::Chars;

/// Largest compiled expression, in bytes.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;

/// Compiles a pattern, anchored at both ends.
///
/// # Errors
///
/// The construct that is not supported.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    regex::RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|_| "a pattern that is no regular expression".to_owned())
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut chars, &mut out, false)?,
            '[' => class(&mut chars, &mut out)?,
            // Ordinary characters there, anchors here.
            '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '.' => out.push_str(r"[^\n\r]"),
            '(' => group(&mut chars, &mut out)?,
            '*' | '+' | '?' | '}' => {
                out.push(c);
                // `*?` is lazy here and an error there.
                if matches!(chars.peek(), Some('*' | '+' | '?' | '{')) {
                    return Err("a quantifier behind a quantifier".to_owned());
                }
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn group(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    if chars.peek() == Some(&'?') {
        return Err("the group (?".to_owned());
    }
    out.push_str("(?:");
    Ok(())
}

fn escape(chars: &mut Peekable<Chars<'_>>, out: &mut String, in_class: bool) -> Result<(), String> {
    let c = chars.next().ok_or("a pattern that ends in \\")?;
    match c {
        'n' | 'r' | 't' | '\\' | '|' | '.' | '?' | '*' | '+' | '(' | ')' | '{' | '}' | '-'
        | '[' | ']' | '^' => {
            out.push('\\');
            out.push(c);
        }
        'd' => out.push_str(r"\p{Nd}"),
        'D' => out.push_str(r"\P{Nd}"),
        's' => out.push_str(if in_class { r" \t\n\r" } else { r"[ \t\n\r]" }),
        'S' if !in_class => out.push_str(r"[^ \t\n\r]"),
        c => return Err(format!("the escape \\{c}")),
    }
    Ok(())
}

/// A class of characters, behind its `[`.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if chars.peek() == Some(&'^') {
        chars.next();
        out.push('^');
    }
    let mut members = 0;
    while let Some(c) = chars.next() {
        match c {
            ']' if members > 0 => {
                out.push(']');
                return Ok(());
            }
            ']' => return Err("an empty class".to_owned()),
            '[' => return Err("a class within a class".to_owned()),
            '-' if chars.peek() == Some(&'[') => return Err("a subtraction of classes".to_owned()),
            '\\' => escape(chars, out, true)?,
            // Operators of the regex crate, ordinary characters there.
            '&' | '~' | '^' | '#' => {
                out.push('\\');
                out.push(c);
            }
            '-' if members == 0 || chars.peek() == Some(&']') => out.push_str(r"\-"),
            c => out.push(c),
        }
        members += 1;
    }
    Err("a class without an end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap().is_match(text)
    }

    #[test]
    fn patterns_are_anchored_and_speak_the_schema_s_language() {
        assert!(matches(r"\D*", "abc") && matches(r"\D*", "") && matches(r"\D*", "a\nb"));
        assert!(!matches(r"\D*", "a1") && !matches(r"\D*", "a٣"));
        assert!(matches("[0-9]{1,3}[.][0-9]{2}", "100.00"));
        assert!(!matches("[0-9]{1,3}[.][0-9]{2}", "x100.00"));
        assert!(matches("a|b", "b") && !matches("a|b", "ab"));
        assert!(matches("^a$", "^a$") && !matches("^a$", "a"));
        assert!(matches("a.b", "a b") && !matches("a.b", "a\nb"));
        assert!(matches("[&&a]+", "a&") && matches("[-a]", "-") && matches("[a-]", "-"));
        assert!(matches(r"[\s]\S", " x"));
    }

    #[test]
    fn what_is_not_supported_is_an_error() {
        for bad in [
            r"\i",
            r"\c",
            r"\p{L}",
            r"\w",
            "[a-z-[aeiou]]",
            "(?i)a",
            "a*?",
            r"\",
            "[a",
            "[]",
            "[[a]]",
            "a{2}{3}",
            r"\b",
        ] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }
}

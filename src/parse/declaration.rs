//! The XML declaration.
//!
//! Source: XML 1.0, productions 23 to 26, 32, 80 and 81. Any version `1.x` is
//! read as 1.0, as production 26 asks of a processor of 1.0.

use super::chars::is_space;

/// What is left of a declaration.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn left(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn spaces(&mut self) -> bool {
        let count = self
            .left()
            .iter()
            .take_while(|byte| is_space(**byte))
            .count();
        self.at += count;
        count > 0
    }

    /// The value of `name="value"` and where it begins, when that is next.
    fn pseudo_attribute(&mut self, name: &[u8]) -> Option<(&'a [u8], usize)> {
        let before = self.at;
        let found = self.pair(name);
        if found.is_none() {
            self.at = before;
        }
        found
    }

    fn pair(&mut self, name: &[u8]) -> Option<(&'a [u8], usize)> {
        if !self.spaces() || !self.left().starts_with(name) {
            return None;
        }
        self.at += name.len();
        self.spaces();
        self.at += self.left().starts_with(b"=").then_some(1)?;
        self.spaces();
        let quote = *self.left().first()?;
        if quote != b'"' && quote != b'\'' {
            return None;
        }
        self.at += 1;
        let start = self.at;
        let length = self.left().iter().position(|byte| *byte == quote)?;
        self.at += length + 1;
        Some((self.bytes.get(start..start + length)?, start))
    }
}

/// The encoding that the beginning of a document declares, and its offset.
pub fn encoding(head: &[u8]) -> Option<(&[u8], usize)> {
    let end = head.iter().position(|byte| *byte == b'>')?;
    let mut rest = Rest {
        bytes: head.get(..end)?,
        at: 0,
    };
    rest.at += rest.left().starts_with(b"<?xml").then_some(5)?;
    rest.pseudo_attribute(b"version")?;
    rest.pseudo_attribute(b"encoding")
}

/// Whether the text between `<?` and `?>` is an XML declaration.
pub fn is_valid(content: &str) -> bool {
    let mut rest = Rest {
        bytes: content.as_bytes(),
        at: "xml".len(),
    };
    let version = rest.pseudo_attribute(b"version");
    if !version.is_some_and(|(version, _)| is_version(version)) {
        return false;
    }
    if let Some((name, _)) = rest.pseudo_attribute(b"encoding")
        && !is_encoding(name)
    {
        return false;
    }
    if let Some((value, _)) = rest.pseudo_attribute(b"standalone")
        && !matches!(value, b"yes" | b"no")
    {
        return false;
    }
    rest.spaces();
    rest.left().is_empty()
}

fn is_version(version: &[u8]) -> bool {
    version
        .strip_prefix(b"1.")
        .is_some_and(|minor| minor.iter().all(u8::is_ascii_digit))
}

fn is_encoding(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_told_from_look_alikes() {
        for fine in [
            "xml version=\"1.0\"",
            "xml version='1.1' ",
            "xml\tversion = \"1.0\" encoding='utf-8'  standalone=\"no\"",
        ] {
            assert!(is_valid(fine), "{fine}");
        }
        for bad in [
            "xml",
            "xml encoding='utf-8'",
            "xml version='2.0'",
            "xml version='1'",
            "xml version='1.0a'",
            "xml version='1.0'encoding='utf-8'",
            "xml version='1.0' standalone='maybe'",
            "xml version='1.0' standalone='yes' encoding='utf-8'",
            "xml version='1.0' encoding=''",
            "xml version='1.0' foo='1'",
            "xml version='1.0",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn the_encoding_is_found_with_its_place() {
        let head = b"<?xml version='1.0' encoding='latin1'?><a/>";
        assert_eq!(encoding(head), Some((&b"latin1"[..], 30)));
        assert_eq!(encoding(b"<a encoding='x'/>"), None);
    }
}

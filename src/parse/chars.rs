//! Which characters XML allows, and where.

use crate::domain::Code;

const NAME_START: u8 = 1;
const NAME: u8 = 2;
/// A byte at which a run of text needs a closer look.
const NOTABLE: u8 = 4;

/// What each byte may be; bytes above 127 are looked up as characters.
const CLASS: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "a byte is below 256, and this runs in the compiler"
)]
const fn classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | b':' => NAME_START | NAME,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            b'\t' | b'\n' => 0,
            // U+FFFE and U+FFFF begin with the last of these.
            0..0x20 | b'>' | 0xEF => NOTABLE,
            _ => 0,
        };
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// White space as XML defines it.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether a text is nothing but white space.
pub fn is_blank(text: &str) -> bool {
    text.bytes().all(is_space)
}

/// Whether a character may occur in a document at all.
///
/// Source: XML 1.0, production 2.
pub fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

/// What [`check_text`] found besides "all fine".
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Can be handed on as it is.
    Plain,
    /// Holds carriage returns, so line ends have to be normalised.
    LineEnds,
}

/// Checks the characters of text, a comment or CDATA; `markup_end` also
/// refuses `]]>`.
pub fn check_text(text: &str, markup_end: bool) -> Result<Text, Code> {
    let bytes = text.as_bytes();
    let mut found = Text::Plain;
    for (at, byte) in bytes.iter().enumerate() {
        if CLASS.get(usize::from(*byte)).copied().unwrap_or(0) & NOTABLE == 0 {
            continue;
        }
        match byte {
            b'\r' => found = Text::LineEnds,
            b'>' => {
                if markup_end
                    && bytes
                        .get(..at)
                        .is_some_and(|before| before.ends_with(b"]]"))
                {
                    return Err(Code::NotWellFormed);
                }
            }
            0xEF => {
                if matches!(bytes.get(at + 1..at + 3), Some([0xBF, 0xBE | 0xBF])) {
                    return Err(Code::NotWellFormed);
                }
            }
            _ => return Err(Code::NotWellFormed),
        }
    }
    Ok(found)
}

/// Appends text with its line ends normalised.
///
/// Source: XML 1.0, section 2.11.
pub fn push_normalised(text: &str, out: &mut String) {
    let mut parts = text.split('\r');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        out.push('\n');
        out.push_str(part.strip_prefix('\n').unwrap_or(part));
    }
}

/// Whether `name` is a Name of XML.
///
/// Source: XML 1.0, productions 4, 4a and 5.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let class = |byte: &u8| CLASS.get(usize::from(*byte)).copied().unwrap_or(0);
    if bytes
        .first()
        .is_some_and(|first| class(first) & NAME_START != 0)
        && bytes.iter().all(|byte| class(byte) & NAME != 0)
    {
        return true;
    }
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}

fn is_name_start(c: char) -> bool {
    matches!(c,
        'A'..='Z' | 'a'..='z' | '_' | ':'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}'
        | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}'
        | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '0'..='9' | '-' | '.' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// The character that a reference (the text between `&` and `;`) stands for.
///
/// # Errors
///
/// [`Code::EntityUnknown`] for a name that is not one of the five of XML,
/// [`Code::NotWellFormed`] for everything that is not a reference.
pub fn reference(text: &str) -> Result<char, Code> {
    let Some(number) = text.strip_prefix('#') else {
        return match text {
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "amp" => Ok('&'),
            "apos" => Ok('\''),
            "quot" => Ok('"'),
            name if is_name(name) => Err(Code::EntityUnknown),
            _ => Err(Code::NotWellFormed),
        };
    };
    let (digits, radix) = number
        .strip_prefix('x')
        .map_or((number, 10), |hex| (hex, 16));
    // `from_str_radix` would take a sign.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(Code::NotWellFormed);
    }
    let digits = digits.trim_start_matches('0');
    u32::from_str_radix(digits, radix)
        .ok()
        .and_then(char::from_u32)
        .filter(|c| is_char(*c))
        .ok_or(Code::NotWellFormed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_non_characters_are_refused() {
        for bad in ["\0", "a\u{1}", "\u{1F}", "\u{FFFE}", "x\u{FFFF}", "\u{B}"] {
            assert!(check_text(bad, false).is_err(), "{bad:?}");
        }
        for fine in ["", "a\tb\nc", "\u{7F}\u{85}", "\u{FFFD}", "é€😀"] {
            assert!(check_text(fine, true).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn the_end_of_cdata_is_refused_in_text_only() {
        assert!(check_text("a]]>b", true).is_err());
        assert!(check_text("a]]>b", false).is_ok());
        assert!(check_text("a]>]b>", true).is_ok());
    }

    #[test]
    fn line_ends_become_one_line_feed() {
        let mut out = String::new();
        push_normalised("a\r\nb\rc\nd\r\r\ne", &mut out);
        assert_eq!(out, "a\nb\nc\nd\n\ne");
    }

    #[test]
    fn references_are_the_five_and_characters() {
        assert_eq!(reference("amp"), Ok('&'));
        assert_eq!(reference("#x1F600"), Ok('😀'));
        assert_eq!(reference("#0000000000000000065"), Ok('A'));
        for bad in [
            "#",
            "#x",
            "#X41",
            "#+65",
            "#1",
            "#0",
            "#xD800",
            "#x110000",
            "#99999999999",
            "",
            "a b",
        ] {
            assert_eq!(reference(bad), Err(Code::NotWellFormed), "{bad}");
        }
        assert_eq!(reference("LT"), Err(Code::EntityUnknown));
    }

    #[test]
    fn names_follow_the_fifth_edition() {
        for fine in ["a", "_a.b-c1", "a:b", "é", "élan", "aé"] {
            assert!(is_name(fine), "{fine}");
        }
        for bad in ["", "1a", "-a", "a b", "a/", "a\u{A0}", "a<", "a\"b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
